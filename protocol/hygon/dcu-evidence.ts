import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonOctets,
  integerMember,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
} from '../json/index.ts';
import { readHygonSignature, type Sm2Signature } from './certificate.ts';
import { hygonSerialNumber } from './csv-evidence.ts';

const code = 'EV_FORMAT';
const maxReports = 16;

/** The report of one accelerator. Its signature is not verified. */
export interface DcuReport {
  readonly version: number;
  /** 16 bytes: the serial number of the chip, ASCII. */
  readonly chipId: Buffer;
  readonly serialNumber: string;
  /** 64 bytes. */
  readonly userData: Buffer;
  readonly measure: Buffer;
  readonly reserved: Buffer;
  readonly signatureUsage: number;
  readonly signatureAlgorithm: number;
  /** The bytes that are signed. */
  readonly signed: Buffer;
  readonly signature: Sm2Signature;
}

/**
 * Reads `{"attestation_reports": [{"body": {...}, "sig": {"r", "s"}}]}` (trustee: hygon_dcu; csv-rs, `api::dcu`).
 *
 * @throws SealpodError EV_FORMAT naming the member, also for no report or more than 16
 */
export function parseDcuEvidence(evidence: JsonValue): DcuReport[] {
  const reports = optionalMember(asJsonObject(evidence, 'hygondcu evidence', code), 'attestation_reports');
  if (!Array.isArray(reports) || reports.length === 0 || reports.length > maxReports) {
    throw new SealpodError(code, 'wrong number of attestation_reports', {
      expected: `1 to ${maxReports}`,
      actual: Array.isArray(reports) ? `${reports.length}` : typeof reports,
    });
  }
  return reports.map((report: JsonValue) => readReport(asJsonObject(report, 'attestation_reports[]', code)));
}

function readReport(report: JsonObject): DcuReport {
  const body = objectMember(report, 'body', code);
  const sig = objectMember(report, 'sig', code);
  const octets = (object: JsonObject, name: string, length: number): Buffer =>
    asJsonOctets(optionalMember(object, name), name, { least: length, most: length, code });
  const integer = (name: string): Buffer => {
    const value = integerMember(body, name, code);
    if (value < 0 || value > 0xffff_ffff)
      throw new SealpodError(code, `${name} is out of range`, { actual: `${value}` });
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const version = integer('version');
  const chipId = octets(body, 'chip_id', 16);
  const userData = octets(body, 'user_data', 64);
  const measure = octets(body, 'measure', 32);
  const reserved = octets(body, 'reserved', 128);
  const usage = integer('sig_usage');
  const algorithm = integer('sig_algo');
  return {
    version: version.readUInt32LE(),
    chipId,
    serialNumber: hygonSerialNumber(chipId),
    userData,
    measure,
    reserved,
    signatureUsage: usage.readUInt32LE(),
    signatureAlgorithm: algorithm.readUInt32LE(),
    signed: Buffer.concat([version, chipId, userData, measure, reserved, usage, algorithm]),
    signature: readHygonSignature(Buffer.concat([octets(sig, 'r', 72), octets(sig, 's', 72)]), 0),
  };
}
