import type { QuoteReader } from './reader.ts';

/** Bytes of a TD report in a quote: TDX 1.0, TDX 1.5, and TDX 1.5 with the identity of the TD. */
export const tdReportBytes = { '1.0': 584, '1.5': 648, '1.5ex': 885 } as const;

/** A TD report in a quote (sgx_report2_body_t and its successors), as its bytes say it. Nothing is verified. */
export interface TdReport {
  readonly version: keyof typeof tdReportBytes;
  /** Security versions of the TDX module when the TD was launched; byte 1 is the module's major version. */
  readonly teeTcbSvn: Buffer;
  readonly mrSeam: Buffer;
  readonly mrSignerSeam: Buffer;
  readonly seamAttributes: Buffer;
  readonly tdAttributes: Buffer;
  readonly xfam: Buffer;
  readonly mrTd: Buffer;
  readonly mrConfigId: Buffer;
  readonly mrOwner: Buffer;
  readonly mrOwnerConfig: Buffer;
  /** RTMR0 to RTMR3. */
  readonly rtmrs: readonly Buffer[];
  readonly reportData: Buffer;
  /** From 1.5 on: security versions of the module that runs now, which may have been updated since the launch. */
  readonly teeTcbSvn2?: Buffer;
  /** From 1.5 on: what service TDs are bound; zeros where none is. */
  readonly mrServiceTd?: Buffer;
  /** Of `1.5ex`: all that follows, as it is. */
  readonly extension?: Buffer;
  readonly attributes: TdAttributes;
}

/** TD attributes (TDX module ABI, ATTRIBUTES). */
export interface TdAttributes {
  /** The TD can be debugged from outside: nothing in it is secret. */
  readonly debug: boolean;
  readonly septVeDisable: boolean;
  readonly protectionKeys: boolean;
  readonly keyLocker: boolean;
  readonly perfmon: boolean;
}

/** @throws SealpodError EV_FORMAT where the bytes do not suffice */
export function readTdReport(reader: QuoteReader, version: TdReport['version']): TdReport {
  const report = {
    version,
    teeTcbSvn: reader.bytes(16),
    mrSeam: reader.bytes(48),
    mrSignerSeam: reader.bytes(48),
    seamAttributes: reader.bytes(8),
    tdAttributes: reader.bytes(8),
    xfam: reader.bytes(8),
    mrTd: reader.bytes(48),
    mrConfigId: reader.bytes(48),
    mrOwner: reader.bytes(48),
    mrOwnerConfig: reader.bytes(48),
    rtmrs: [reader.bytes(48), reader.bytes(48), reader.bytes(48), reader.bytes(48)],
    reportData: reader.bytes(64),
  };
  const attributes = parseAttributes(report.tdAttributes.readBigUInt64LE(0));
  if (version === '1.0') return { ...report, attributes };
  const current = { teeTcbSvn2: reader.bytes(16), mrServiceTd: reader.bytes(48) };
  if (version === '1.5') return { ...report, ...current, attributes };
  const extension = reader.bytes(tdReportBytes['1.5ex'] - tdReportBytes['1.5']);
  return { ...report, ...current, extension, attributes };
}

function parseAttributes(value: bigint): TdAttributes {
  const bit = (position: bigint): boolean => ((value >> position) & 1n) === 1n;
  return {
    debug: bit(0n),
    septVeDisable: bit(28n),
    protectionKeys: bit(30n),
    keyLocker: bit(31n),
    perfmon: bit(63n),
  };
}
