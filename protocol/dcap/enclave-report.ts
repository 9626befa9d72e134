import type { QuoteReader } from './reader.ts';

export const enclaveReportBytes = 384;

/** The body of a report of an SGX enclave (SGX_REPORT_BODY), as its bytes say it. Nothing is verified. */
export interface EnclaveReport {
  readonly raw: Buffer;
  readonly cpuSvn: Buffer;
  readonly miscSelect: Buffer;
  readonly reserved1: Buffer;
  readonly isvExtProdId: Buffer;
  /** FLAGS and XFRM, 16 bytes. */
  readonly attributes: Buffer;
  readonly mrEnclave: Buffer;
  readonly reserved2: Buffer;
  readonly mrSigner: Buffer;
  readonly reserved3: Buffer;
  readonly configId: Buffer;
  readonly isvProdId: number;
  readonly isvSvn: number;
  readonly configSvn: number;
  readonly reserved4: Buffer;
  readonly isvFamilyId: Buffer;
  readonly reportData: Buffer;
  /** ATTRIBUTES.FLAGS.DEBUG: the host can read and write the memory of the enclave. */
  readonly debug: boolean;
}

/** @throws SealpodError EV_FORMAT where the bytes do not suffice */
export function readEnclaveReport(reader: QuoteReader): EnclaveReport {
  const raw = reader.bytes(enclaveReportBytes);
  const field = (at: number, length: number): Buffer => raw.subarray(at, at + length);
  return {
    raw,
    cpuSvn: field(0, 16),
    miscSelect: field(16, 4),
    reserved1: field(20, 12),
    isvExtProdId: field(32, 16),
    attributes: field(48, 16),
    mrEnclave: field(64, 32),
    reserved2: field(96, 32),
    mrSigner: field(128, 32),
    reserved3: field(160, 32),
    configId: field(192, 64),
    isvProdId: raw.readUInt16LE(256),
    isvSvn: raw.readUInt16LE(258),
    configSvn: raw.readUInt16LE(260),
    reserved4: field(262, 42),
    isvFamilyId: field(304, 16),
    reportData: field(320, 64),
    debug: ((raw[48] ?? 0) & 0x02) !== 0,
  };
}
