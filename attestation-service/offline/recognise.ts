import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  decodeBase64,
  decodeBase64Url,
  type JsonObject,
  type JsonValue,
  parseJson,
} from '@sealpod/protocol/json';
import { isTee, type TeeName } from '@sealpod/protocol/rcar';
import { snpReportAsJson, snpReportBytes } from '@sealpod/protocol/snp';

const maxBytes = 8 * 1024 * 1024;

/** Evidence in a file, in the form in which it goes to a verifier. Nothing in it is verified. */
export interface EvidenceInFile {
  readonly tee: string;
  readonly evidence: JsonValue;
  /** What came around the evidence in a request to an attestation service. */
  readonly request?: JsonObject;
}

/** Shapes of evidence: a TEE and the members that only its evidence has. */
const shapes: readonly (readonly [TeeName, ...members: string[]])[] = [
  ['az-snp-vtpm', 'hcl_report', 'vcek'],
  ['az-snp-vtpm', 'report', 'vcek'],
  ['az-tdx-vtpm', 'hcl_report', 'td_quote'],
  ['az-tdx-vtpm', 'report', 'td_quote'],
  ['csv', 'attestation_report', 'serial_number'],
  ['snp', 'attestation_report'],
  ['tpm', 'ak_public', 'tpm_quote'],
  ['nvidia', 'device_evidence_list'],
  ['nvidia-dpu', 'devices', 'version'],
  ['hygondcu', 'attestation_reports'],
  ['se', 'encr_measurement_key', 'cuid'],
  ['cca', 'token'],
  ['aws-nitro', 'document'],
  ['sample', 'svn', 'report_data'],
];

/** Vendor id of Intel's quoting enclave in the header of a quote. */
const intelQuotingEnclave = Buffer.from('939a7233f79c4ca9940a0db3957f0607', 'hex');

/**
 * Reads a file of evidence: the JSON that attesters send, with or without a request around it
 * (`{"tee", "evidence", "runtime_data"?, "init_data"?}`, the evidence as JSON or base64url of it), or the bare bytes of an SNP
 * report, an SGX or TDX quote, a CCA token or a Nitro document.
 *
 * @param tee what it is, where that is known; else it is recognised
 * @throws SealpodError USAGE where it cannot be recognised, EV_FORMAT where it is no JSON, REQUEST_TOO_LARGE
 */
export function readEvidenceFile(bytes: Uint8Array, tee?: string): EvidenceInFile {
  if (bytes.length > maxBytes) {
    throw new SealpodError('REQUEST_TOO_LARGE', 'the evidence is too large', {
      expected: `at most ${maxBytes} bytes`,
      actual: `${bytes.length}`,
    });
  }
  const buffer = Buffer.from(bytes);
  if (!looksLikeJson(buffer)) return readBinary(buffer, tee);
  const json = parseJson(buffer, { what: 'evidence', maxSize: maxBytes, code: 'EV_FORMAT' });
  const request = requestOf(json);
  if (request !== undefined) {
    const evidence = evidenceOf(request['evidence'] ?? null);
    return { tee: tee ?? String(request['tee']), evidence, request };
  }
  return { tee: tee ?? recogniseJson(json), evidence: json };
}

function looksLikeJson(bytes: Buffer): boolean {
  return /^\s*[{[]/.test(bytes.subarray(0, 64).toString('latin1'));
}

/** A request, or the only one of the list that upstream's REST service takes. */
function requestOf(json: JsonValue): JsonObject | undefined {
  const root = objectOf(json);
  const list = root?.['verification_requests'];
  const candidate = Array.isArray(list) && list.length === 1 ? objectOf(list[0] as JsonValue) : root;
  return typeof candidate?.['tee'] === 'string' && candidate['evidence'] !== undefined ? candidate : undefined;
}

function objectOf(value: JsonValue | undefined): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
}

function evidenceOf(value: JsonValue): JsonValue {
  if (typeof value !== 'string') return value;
  const text = decodeBase64Url(value.replace(/=+$/, ''), { what: 'evidence', maxBytes, code: 'EV_FORMAT' });
  return parseJson(text, { what: 'evidence', maxSize: maxBytes, code: 'EV_FORMAT' });
}

function recogniseJson(json: JsonValue): string {
  const root = asJsonObject(json, 'evidence', 'EV_FORMAT');
  const [found] = shapes.find(([, ...members]) => members.every((name) => Object.hasOwn(root, name))) ?? [];
  if (found !== undefined) return found;
  const quote = root['quote'];
  if (typeof quote === 'string') return teeOfQuote(decodeBase64(quote, { what: 'quote', maxBytes, code: 'EV_FORMAT' }));
  throw unrecognised(`JSON with members ${Object.keys(root).slice(0, 8).join(', ')}`);
}

function teeOfQuote(quote: Buffer): TeeName {
  if (isQuote(quote)) return quote.readUInt32LE(4) === 0x81 ? 'tdx' : 'sgx';
  throw unrecognised('a quote of an unknown kind');
}

/** Versions 3 to 5, signed by Intel's quoting enclave. */
function isQuote(bytes: Buffer): boolean {
  return (
    bytes.length >= 48 &&
    [3, 4, 5].includes(bytes.readUInt16LE(0)) &&
    bytes.subarray(12, 28).equals(intelQuotingEnclave)
  );
}

function readBinary(bytes: Buffer, tee: string | undefined): EvidenceInFile {
  if ((tee === undefined && isQuote(bytes)) || tee === 'tdx' || tee === 'sgx')
    return { tee: tee ?? teeOfQuote(bytes), evidence: { quote: bytes.toString('base64') } };
  const isReport = bytes.length === snpReportBytes && bytes.readUInt32LE(0) >= 2 && bytes.readUInt32LE(0) <= 5;
  if ((tee === undefined && isReport) || tee === 'snp')
    return { tee: 'snp', evidence: { attestation_report: snpReportAsJson(bytes), cert_chain: null } };
  // Tag 399: a collection of CCA tokens (draft-ffm-rats-cca-token); 907 in later drafts.
  const isToken = bytes.length > 3 && bytes[0] === 0xd9 && [399, 907].includes(bytes.readUInt16BE(1));
  if ((tee === undefined && isToken) || tee === 'cca') return { tee: 'cca', evidence: { token: [...bytes] } };
  // COSE_Sign1: four parts, tagged or not.
  const isDocument = bytes[0] === 0x84 || (bytes[0] === 0xd2 && bytes[1] === 0x84);
  if ((tee === undefined && isDocument) || tee === 'aws-nitro')
    return { tee: 'aws-nitro', evidence: { document: bytes.toString('base64') } };
  if (tee !== undefined && isTee(tee)) throw new SealpodError('EV_FORMAT', `${tee} evidence is a JSON document`);
  throw unrecognised(`${bytes.length} bytes that are no JSON`);
}

function unrecognised(actual: string): SealpodError {
  return new SealpodError('USAGE', 'it does not show of which TEE this evidence is', {
    expected: 'evidence as an attester sends it, an SNP report, an SGX or TDX quote, or a CCA token',
    actual,
    fix: 'name the TEE with --tee',
  });
}
