import { asJsonObject, decodeBase64, type JsonValue, optionalMember, stringMember } from '../json/index.ts';

const code = 'EV_FORMAT';
const limits = { quote: 64 * 1024, eventLog: 1024 * 1024 } as const;

/** Evidence of TEE `tdx`. Nothing is verified. */
export interface TdxEvidence {
  readonly quote: Buffer;
  /** The CCEL table, with the events of the attestation agent behind the firmware's. */
  readonly eventLog?: Buffer;
}

/** Reads `{"quote", "cc_eventlog"?}`, both base64 (guest-components: tdx attester). @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseTdxEvidence(evidence: JsonValue): TdxEvidence {
  const root = asJsonObject(evidence, 'evidence', code);
  const quote = decodeBase64(stringMember(root, 'quote', code), { what: 'quote', maxBytes: limits.quote, code });
  const log = optionalMember(root, 'cc_eventlog');
  if (log === undefined || log === null || log === '') return { quote };
  const text = stringMember(root, 'cc_eventlog', code);
  return { quote, eventLog: decodeBase64(text, { what: 'cc_eventlog', maxBytes: limits.eventLog, code }) };
}

/** Reads `{"quote"}`, base64 (guest-components: sgx attester). @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseSgxEvidence(evidence: JsonValue): Buffer {
  const root = asJsonObject(evidence, 'evidence', code);
  return decodeBase64(stringMember(root, 'quote', code), { what: 'quote', maxBytes: limits.quote, code });
}
