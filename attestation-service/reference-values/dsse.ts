import { type KeyObject, verify } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  decodeBase64,
  decodeBase64Url,
  type JsonValue,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';
import type { Signer } from './config.ts';

/** An envelope whose signatures have been counted. */
export interface OpenedEnvelope {
  readonly payloadType: string;
  readonly payload: Buffer;
  /** Enrolled signers, each with at least one signature that verifies. */
  readonly signers: readonly Signer[];
}

const maxPayloadBytes = 1024 * 1024;
const maxSignatures = 32;

/**
 * Opens a DSSE envelope (DSSE v1.0.2): `{"payloadType", "payload", "signatures": [{"keyid"?, "sig"}]}` with base64 of
 * either alphabet. Which key a signature is of is found by trying: `keyid` is a hint that nothing vouches for.
 *
 * Signatures are Ed25519, ECDSA P-256 with SHA-256 or ECDSA P-384 with SHA-384, these in ASN.1 DER as sigstore and in-toto
 * make them, or as `r || s` as in the test vector of the specification, which leaves the form open.
 *
 * Not verified: that there are enough signers, and what the payload says.
 *
 * @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE
 */
export function openEnvelope(bytes: Uint8Array, signers: readonly Signer[]): OpenedEnvelope {
  const envelope = asJsonObject(parseJson(bytes, { what: 'DSSE envelope' }), 'DSSE envelope');
  const payloadType = stringMember(envelope, 'payloadType');
  const payload = base64Of(stringMember(envelope, 'payload'), 'DSSE payload');
  const signatures = optionalMember(envelope, 'signatures');
  if (!Array.isArray(signatures) || signatures.length === 0 || signatures.length > maxSignatures) {
    throw new SealpodError('REQUEST_FORMAT', 'a DSSE envelope needs signatures', {
      expected: `1 to ${maxSignatures}`,
      actual: Array.isArray(signatures) ? `${signatures.length}` : 'none',
    });
  }
  const signed = preAuthenticationEncoding(payloadType, payload);
  const texts = signatures.map((signature: JsonValue) =>
    base64Of(stringMember(asJsonObject(signature, 'DSSE signature'), 'sig'), 'DSSE signature'),
  );
  return {
    payloadType,
    payload,
    signers: signers.filter((signer) => texts.some((signature) => isSignatureOf(signer, signed, signature))),
  };
}

/** What is signed: `DSSEv1 SP LEN(type) SP type SP LEN(body) SP body` (DSSE, "PAE"). */
export function preAuthenticationEncoding(payloadType: string, payload: Uint8Array): Buffer {
  const type = Buffer.from(payloadType);
  return Buffer.concat([
    Buffer.from(`DSSEv1 ${type.length} `),
    type,
    Buffer.from(` ${payload.length} `),
    Buffer.from(payload),
  ]);
}

/** The digest that a key signs with; null: it signs the bytes themselves. */
export function digestAlgorithmOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): 'sha256' | 'sha384' | null {
  if (asymmetricKeyType === 'ed25519') return null;
  return asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'sha384' : 'sha256';
}

function isSignatureOf({ key }: Signer, signed: Buffer, signature: Buffer): boolean {
  const algorithm = digestAlgorithmOf(key);
  if (verify(algorithm, signed, { key, dsaEncoding: 'der' }, signature)) return true;
  return algorithm !== null && verify(algorithm, signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
}

function base64Of(text: string, what: string): Buffer {
  const urlSafe = /[-_]/.test(text) || text.length % 4 !== 0;
  return urlSafe
    ? decodeBase64Url(text.replace(/=+$/, ''), { what, maxBytes: maxPayloadBytes })
    : decodeBase64(text, { what, maxBytes: maxPayloadBytes });
}
