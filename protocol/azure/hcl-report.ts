import { SealpodError } from '../errors.ts';
import { asJsonObject, decodeHex, type JsonObject, optionalMember, parseJson, stringMember } from '../json/index.ts';

/**
 * The report that the paravisor (host compatibility layer) of an Azure confidential VM leaves in the NV index of its
 * virtual TPM: the hardware's report, and the data whose digest the hardware's report data hold. Nothing is verified.
 */
export interface HclReport {
  /** 2 SEV-SNP, 4 TDX. */
  readonly reportType: number;
  /** 1 SHA-256, 2 SHA-384, 3 SHA-512. */
  readonly hashType: number;
  /** The hardware's report where there is room for 1184 bytes: an SNP report, or a TD report. */
  readonly hardwareReport: Buffer;
  /** The bytes that are hashed into the hardware's report data. */
  readonly variableData: Buffer;
  /** The attestation key of the virtual TPM, a JSON Web Key of type RSA. */
  readonly attestationKey: JsonObject;
  /** What the guest asked to have in the report; 64 bytes, undefined where there is none. */
  readonly userData?: Buffer;
}

const headerBytes = 32;
const hardwareReportBytes = 1184;
const requestBytes = 20;
const variableDataAt = headerBytes + hardwareReportBytes + requestBytes;
const maxBytes = 64 * 1024;
const code = 'EV_FORMAT';

/** Name of the attestation key among the keys of the variable data. */
const attestationKeyId = 'HCLAkPub';

/** @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseHclReport(bytes: Buffer): HclReport {
  if (bytes.length > maxBytes) throw new SealpodError('REQUEST_TOO_LARGE', 'the HCL report is too large');
  if (bytes.length < variableDataAt || bytes.subarray(0, 4).toString('latin1') !== 'HCLA') {
    throw new SealpodError(code, 'malformed HCL report', {
      expected: `HCLA and at least ${variableDataAt} bytes`,
      actual: `${bytes.length} bytes`,
    });
  }
  const request = bytes.subarray(headerBytes + hardwareReportBytes, variableDataAt);
  const variableBytes = request.readUInt32LE(16);
  if (variableBytes > bytes.length - variableDataAt) {
    throw new SealpodError(code, 'the variable data of the HCL report are cut short', {
      expected: `${variableBytes} bytes`,
      actual: `${bytes.length - variableDataAt}`,
    });
  }
  const variableData = bytes.subarray(variableDataAt, variableDataAt + variableBytes);
  const document = asJsonObject(
    parseJson(variableData, { what: 'HCL variable data', code }),
    'HCL variable data',
    code,
  );
  const userData = optionalMember(document, 'user-data');
  return {
    reportType: request.readUInt32LE(8),
    hashType: request.readUInt32LE(12),
    hardwareReport: bytes.subarray(headerBytes, headerBytes + hardwareReportBytes),
    variableData,
    attestationKey: findKey(document),
    ...(userData === undefined
      ? {}
      : { userData: decodeHex(stringMember(document, 'user-data', code), { what: 'user-data', maxBytes: 64, code }) }),
  };
}

function findKey(document: JsonObject): JsonObject {
  const keys = optionalMember(document, 'keys');
  const found = (Array.isArray(keys) ? keys : [])
    .map((key) => asJsonObject(key, 'keys[]', code))
    .filter((key) => optionalMember(key, 'kid') === attestationKeyId);
  const [key] = found;
  if (key === undefined || found.length > 1) {
    throw new SealpodError(code, 'the HCL report does not name one attestation key', {
      expected: `one key ${attestationKeyId}`,
      actual: `${found.length}`,
    });
  }
  return key;
}
