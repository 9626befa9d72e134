import { createHash, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, parseJson } from '@sealpod/protocol/json';
import { openSigners } from './config.ts';
import { digestAlgorithmOf, openEnvelope, preAuthenticationEncoding } from './dsse.ts';
import { readReferenceValueMessage } from './message.ts';
import {
  type InTotoStatement,
  inTotoPayloadType,
  inTotoStatementType,
  parseStatement,
  referenceValuesPredicate,
} from './statement.ts';
import { checkValues } from './store.ts';

/** A private key with the name it is spoken of by, e.g. its file. */
export interface SigningKey {
  readonly name: string;
  /** Ed25519, EC P-256 or EC P-384. */
  readonly privateKey: KeyObject;
}

/** What a statement about reference values says besides the values. */
export interface StatementOptions {
  /** What was measured, e.g. an image. */
  readonly subject: { readonly name: string; readonly sha256: string };
  readonly issuedAt: Date;
  /** RFC 3339; twelve months after the issue at the latest, whatever it says. */
  readonly expiresAt?: string;
  /** The attestation policy they are for; absent: every policy. */
  readonly scope?: string;
}

/** An in-toto statement (v1) that says what measured components must be. It is not checked here. */
export function referenceValueStatement(values: JsonObject, options: StatementOptions): JsonObject {
  const { subject, issuedAt, expiresAt, scope } = options;
  return {
    _type: inTotoStatementType,
    subject: [{ name: subject.name, digest: { sha256: subject.sha256 } }],
    predicateType: referenceValuesPredicate,
    predicate: {
      referenceValues: values,
      issuedAt: issuedAt.toISOString(),
      ...(expiresAt === undefined ? {} : { expiresAt }),
      ...(scope === undefined ? {} : { scope }),
    },
  };
}

/**
 * Signs a statement in a DSSE envelope, one signature for each key, `keyid` the SHA-256 (hex) of its SPKI.
 *
 * @throws SealpodError USAGE for keys of another kind or one key twice; what `registerReferenceValues` would refuse at
 * `now` wherever the keys are enrolled: REQUEST_FORMAT, REQUEST_TOO_LARGE, UNSUPPORTED, RV_EXPIRED
 */
export function signStatement(statement: JsonObject, keys: readonly SigningKey[], now: Date): JsonObject {
  const payload = Buffer.from(JSON.stringify(statement));
  return signEnvelope({ payloadType: inTotoPayloadType, payload, signatures: [] }, keys, now);
}

/**
 * Adds signatures to an envelope, for statements that need several signers. Those that it has are kept and not verified:
 * whose they are only the one who enrolled the signers can tell.
 *
 * @throws SealpodError as {@link signStatement}; USAGE where a key has signed it before
 */
export function addSignatures(envelope: JsonObject, keys: readonly SigningKey[], now: Date): JsonObject {
  const signers = signersOf(keys);
  const { payloadType, payload, signers: before } = openEnvelope(Buffer.from(JSON.stringify(envelope)), signers);
  if (before.length > 0) {
    throw new SealpodError('USAGE', 'the envelope holds a signature of this key already', {
      actual: before.map(({ name }) => name).join(', '),
    });
  }
  const signatures = optionalMember(envelope, 'signatures') as readonly JsonValue[];
  return signEnvelope({ payloadType, payload, signatures }, keys, now);
}

/**
 * What whoever signs an envelope says. Its signatures are not verified.
 *
 * @throws SealpodError as `parseStatement`
 */
export function statementIn(envelope: JsonObject): InTotoStatement {
  const { payloadType, payload } = openEnvelope(Buffer.from(JSON.stringify(envelope)), []);
  return parseStatement(payloadType, payload);
}

interface EnvelopeParts {
  readonly payloadType: string;
  readonly payload: Buffer;
  readonly signatures: readonly JsonValue[];
}

function signEnvelope(
  { payloadType, payload, signatures }: EnvelopeParts,
  keys: readonly SigningKey[],
  now: Date,
): JsonObject {
  const signers = signersOf(keys);
  const signed = preAuthenticationEncoding(payloadType, payload);
  const envelope = {
    payloadType,
    payload: payload.toString('base64'),
    signatures: [
      ...signatures,
      ...keys.map(({ privateKey }) => ({
        keyid: createHash('sha256')
          .update(createPublicKey(privateKey).export({ format: 'der', type: 'spki' }))
          .digest('hex'),
        sig: sign(digestAlgorithmOf(privateKey), signed, { key: privateKey, dsaEncoding: 'der' }).toString('base64'),
      })),
    ],
  };
  // What comes out has gone through the very checks that it will meet.
  const accepted = readReferenceValueMessage(
    JSON.stringify({ type: 'dsse', payload: Buffer.from(JSON.stringify(envelope)).toString('base64') }),
    { config: { requiredSignatures: keys.length }, signers, now },
  );
  checkValues(accepted);
  return envelope;
}

function signersOf(keys: readonly SigningKey[]): ReturnType<typeof openSigners> {
  return openSigners({
    signers: keys.map(({ name, privateKey }) => ({
      name,
      publicKey: createPublicKey(privateKey).export({ format: 'pem', type: 'spki' }).toString(),
    })),
  });
}

/** What is to be signed, as a file holds it. */
export type SignableFile =
  | { readonly kind: 'values'; readonly values: JsonObject }
  | { readonly kind: 'statement'; readonly statement: JsonObject }
  | { readonly kind: 'envelope'; readonly envelope: JsonObject };

/**
 * Recognises `{"reference_values": {…}}` as `sealpod podvm measure` writes it, a plain object of reference values, an in-toto
 * statement and a DSSE envelope.
 *
 * @throws SealpodError USAGE where it is none of them
 */
export function readSignableFile(bytes: Uint8Array, name: string): SignableFile {
  const root = asJsonObject(parseJson(bytes, { what: name, code: 'USAGE' }), name, 'USAGE');
  if (optionalMember(root, 'payloadType') !== undefined) return { kind: 'envelope', envelope: root };
  if (optionalMember(root, '_type') !== undefined) return { kind: 'statement', statement: root };
  const measured = optionalMember(root, 'reference_values');
  return {
    kind: 'values',
    values: measured === undefined ? root : asJsonObject(measured, 'reference_values', 'USAGE'),
  };
}
