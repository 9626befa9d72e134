import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  decodeBase64,
  type JsonObject,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';
import { maySign, type ReferenceValuesConfig, type Signer } from './config.ts';
import { openCorim } from './corim/index.ts';
import { openEnvelope } from './dsse.ts';
import type { AdministratorIdentity, AttributedValues, Provenance } from './provenance.ts';
import { parseStatement, type ReferenceValueStatement } from './statement.ts';

/** Version of upstream's messages. */
const messageVersion = '0.1.0';
const maxPayloadBytes = 1024 * 1024;
/** Upstream lets values of a message live for twelve months; unlike upstream, we enforce it. */
const lifetimeMonths = 12;

/** Who may be believed, and when. */
export interface MessageRules {
  readonly config: ReferenceValuesConfig;
  readonly signers: readonly Signer[];
  /** The authenticated sender; undefined: nobody knows who sent it. */
  readonly administrator?: AdministratorIdentity;
  readonly now: Date;
}

/**
 * Reads a message of upstream's Reference Value Provider Service: JSON text `{"version"?, "type", "payload"}`, the payload
 * in base64. Types:
 *
 * - `sample`, upstream's: a JSON object, each member a reference value. Nothing in it is signed: an authenticated
 *   administrator stands for it, else it is refused unless the configuration accepts unsigned values.
 * - `dsse`: a DSSE envelope around an in-toto statement.
 * - `corim`: a signed CoRIM (COSE_Sign1). Unsigned ones are treated as `sample`.
 *
 * @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE, UNSUPPORTED for another type; RV_UNSIGNED; RV_SIGNATURE;
 * RV_EXPIRED for a statement whose time is over
 */
export function readReferenceValueMessage(text: string, rules: MessageRules): AttributedValues {
  const message = asJsonObject(parseJson(text, { what: 'reference value message' }), 'reference value message');
  const version = optionalMember(message, 'version') ?? messageVersion;
  if (version !== messageVersion) {
    throw new SealpodError('REQUEST_FORMAT', 'unknown version of a reference value message', {
      expected: messageVersion,
      actual: String(version),
    });
  }
  const type = stringMember(message, 'type');
  const payload = (): Buffer =>
    decodeBase64(stringMember(message, 'payload'), { what: 'payload', maxBytes: maxPayloadBytes });
  if (type === 'sample') {
    const values = parseJson(payload(), { what: 'reference value payload' });
    return unsigned(asJsonObject(values, 'reference value payload'), rules);
  }
  if (type === 'dsse') return readEnvelope(payload(), rules);
  if (type === 'corim') return readCorim(payload(), rules);
  throw new SealpodError('UNSUPPORTED', 'unknown type of reference value message', {
    expected: 'dsse, corim or sample',
    actual: type.slice(0, 32),
  });
}

function unsigned(values: JsonObject, rules: MessageRules): AttributedValues {
  return { values, provenance: provenanceOfUnsigned(rules), expiresAt: yearFrom(rules.now).toISOString() };
}

function provenanceOfUnsigned({ config, administrator }: MessageRules): Provenance {
  if (administrator !== undefined) return { kind: 'administrator', ...administrator };
  if (config.acceptUnsigned === true) return { kind: 'unsigned' };
  throw new SealpodError('RV_UNSIGNED', 'nobody stands for these reference values', {
    expected: 'a signed statement (type dsse or corim), or an authenticated administrator',
    actual: 'an unsigned message from an unknown sender',
    source: 'configuration: referenceValues.acceptUnsigned is off',
  });
}

function readEnvelope(bytes: Buffer, rules: MessageRules): AttributedValues {
  const { payloadType, payload, signers } = openEnvelope(bytes, rules.signers);
  checkThreshold(signers, rules);
  return attribute('dsse', parseStatement(payloadType, payload), signers, payload, rules);
}

function readCorim(bytes: Buffer, rules: MessageRules): AttributedValues {
  const { signed, statement } = openCorim(bytes, rules.signers);
  if (signed === undefined) return { ...unsigned(statement.values, rules), ...lifetimeOf(statement, rules.now) };
  checkThreshold(signed.signers, rules);
  return attribute('corim', statement, signed.signers, signed.payload, rules);
}

function checkThreshold(signers: readonly Signer[], rules: MessageRules): void {
  const required = rules.config.requiredSignatures ?? 1;
  if (signers.length >= required) return;
  throw new SealpodError('RV_SIGNATURE', 'the statement lacks signatures of enrolled signers', {
    expected: `${required} of: ${rules.signers.map(({ name }) => name).join(', ') || 'no signer is enrolled'}`,
    actual: signers.map(({ name }) => name).join(', ') || 'none that verifies',
    source: 'configuration: referenceValues.signers',
  });
}

/** Each value needs enough signers who may speak for it, not the statement as a whole. */
function attribute(
  format: 'dsse' | 'corim',
  statement: ReferenceValueStatement,
  signers: readonly Signer[],
  signed: Uint8Array,
  rules: MessageRules,
): AttributedValues {
  const required = rules.config.requiredSignatures ?? 1;
  for (const id of Object.keys(statement.values)) {
    const entitled = signers.filter((signer) => maySign(signer, id));
    if (entitled.length >= required) continue;
    throw new SealpodError('RV_SIGNATURE', `the signers may not speak for reference value ${id}`, {
      expected: `${required} of: ${rules.signers.flatMap((one) => (maySign(one, id) ? [one.name] : [])).join(', ') || 'no signer may'}`,
      actual: signers.map(({ name }) => name).join(', '),
      source: 'configuration: referenceValues.signers[].ids',
    });
  }
  if (statement.issuedAt.getTime() > rules.now.getTime() + clockToleranceMs) {
    throw new SealpodError('REQUEST_FORMAT', 'the statement was issued in the future', {
      expected: `at most ${rules.now.toISOString()}`,
      actual: statement.issuedAt.toISOString(),
    });
  }
  const lifetime = lifetimeOf(statement, rules.now);
  return {
    values: statement.values,
    ...lifetime,
    ...(statement.scope === undefined ? {} : { scope: statement.scope }),
    provenance: {
      kind: 'signed',
      format,
      signers: signers.map(({ name }) => name),
      issuedAt: statement.issuedAt.toISOString(),
      digest: createHash('sha256').update(signed).digest('hex'),
    },
  };
}

const clockToleranceMs = 5 * 60_000;

/** Until the statement says, and never longer than twelve months from when it was issued. */
function lifetimeOf({ issuedAt, expiresAt }: ReferenceValueStatement, now: Date): { readonly expiresAt: string } {
  const longest = yearFrom(issuedAt);
  const end = expiresAt === undefined || expiresAt.getTime() > longest.getTime() ? longest : expiresAt;
  if (end.getTime() <= now.getTime()) {
    throw new SealpodError('RV_EXPIRED', 'the time of the statement is over', {
      expected: `registered before ${end.toISOString()}`,
      actual: now.toISOString(),
    });
  }
  return { expiresAt: end.toISOString() };
}

function yearFrom(date: Date): Date {
  const end = new Date(date);
  end.setUTCMonth(end.getUTCMonth() + lifetimeMonths);
  return end;
}
