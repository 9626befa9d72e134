import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { type EventLog, parseEventLog } from '@sealpod/protocol/event-log';
import type { JsonValue } from '@sealpod/protocol/json';
import {
  type AttestStructure,
  AttestType,
  objectName,
  type PublicArea,
  parseAttest,
  parsePublicArea,
  parseQuoteInfo,
  parseSignature,
  parseTpmEvidence,
  publicAreaKey,
  type QuoteInfo,
  type Signature,
} from '@sealpod/protocol/tpm';
import { type Certificate, parseCertificate } from '../../endorsements/certificate.ts';

/** What proves that the attestation key lives in an enrolled TPM. */
export interface KeyProof {
  readonly publicArea: PublicArea;
  /** The key of the public area. */
  readonly publicAreaKey: KeyObject;
  /** Name of the object the public area describes. */
  readonly name: Buffer;
  readonly endorsement: Certificate;
  readonly activatedSecret: Buffer;
}

/** Evidence of TEE `tpm`, completely parsed. Nothing in it is verified. */
export interface TpmStatement {
  readonly attestationKey: KeyObject;
  /** SubjectPublicKeyInfo, base64, as sent. */
  readonly attestationKeyText: string;
  /** Absent where the guest proves nothing, as in upstream's plain shape. */
  readonly keyProof?: KeyProof;
  readonly attest: AttestStructure;
  /** The bytes that are signed. */
  readonly attestBytes: Buffer;
  /** Undefined where the structure is not a quote. */
  readonly quote?: QuoteInfo;
  readonly signature: Signature;
  readonly pcrs: readonly Buffer[];
  /** Absent in upstream's plain shape. */
  readonly eventLog?: EventLog;
  readonly commandLine?: string;
}

/**
 * Parses evidence. The key is proved by `activated_secret`, which needs `ak_public_area` and `ek_certificate` beside it.
 *
 * @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE
 */
export function parseTpmStatement(evidence: JsonValue): TpmStatement {
  const parsed = parseTpmEvidence(evidence);
  const attest = parseAttest(parsed.quote.message);
  const keyProof = parseKeyProof(parsed);
  return {
    attestationKey: importKey(parsed.akPublic),
    attestationKeyText: parsed.akPublic.toString('base64'),
    ...(keyProof === undefined ? {} : { keyProof }),
    attest,
    attestBytes: parsed.quote.message,
    ...(attest.type === AttestType.quote ? { quote: parseQuoteInfo(attest.attested) } : {}),
    signature: parseSignature(parsed.quote.signature),
    pcrs: parsed.quote.pcrs,
    ...(parsed.eventLog === undefined ? {} : { eventLog: parseEventLog(parsed.eventLog, { maxBytes: 512 * 1024 }) }),
    ...(parsed.kernelCommandLine === undefined ? {} : { commandLine: parsed.kernelCommandLine }),
  };
}

function parseKeyProof({
  akPublicArea,
  ekCertificate,
  activatedSecret,
}: ReturnType<typeof parseTpmEvidence>): KeyProof | undefined {
  // Without a secret nothing is proved, whatever else is there: a guest whose broker knows no credential activation.
  if (activatedSecret === undefined) return undefined;
  if (akPublicArea === undefined || ekCertificate === undefined) {
    throw new SealpodError('EV_FORMAT', 'incomplete proof of the attestation key', {
      expected: 'ak_public_area and ek_certificate with activated_secret',
    });
  }
  const publicArea = parsePublicArea(akPublicArea);
  return {
    publicArea,
    publicAreaKey: publicAreaKey(publicArea),
    name: objectName(akPublicArea),
    endorsement: cachedCertificate(ekCertificate),
    activatedSecret,
  };
}

function importKey(der: Buffer): KeyObject {
  try {
    const key = createPublicKey({ key: der, format: 'der', type: 'spki' });
    if (!key.export({ format: 'der', type: 'spki' }).equals(der)) throw new RangeError('not its one DER encoding');
    return key;
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'ak_public is not a public key', { cause });
  }
}

/** A guest comes back every few minutes with the same certificate. Parsing only is kept; validity is checked each time. */
const certificates = new Map<string, Certificate>();
const keptCertificates = 512;

function cachedCertificate(der: Buffer): Certificate {
  const digest = createHash('sha256').update(der).digest('hex');
  const known = certificates.get(digest);
  if (known !== undefined) return known;
  const certificate = parseCertificate(der);
  const oldest = certificates.keys().next().value;
  if (certificates.size >= keptCertificates && oldest !== undefined) certificates.delete(oldest);
  certificates.set(digest, certificate);
  return certificate;
}
