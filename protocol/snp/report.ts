import { SealpodError } from '../errors.ts';
import { type SnpGeneration, snpGenerationOf } from './generation.ts';
import { parseSnpTcb, type SnpTcb, tcbBytes } from './tcb.ts';

/** Bytes of a report, and how many of them, from the first, are signed. */
export const snpReportBytes = 1184;
export const snpSignedBytes = 0x2a0;

/** Signature algorithm 1 of the ABI: ECDSA over P-384 with SHA-384. */
export const ecdsaP384Sha384 = 1;

/** Which key signed a report: `KEY_INFO.SIGNING_KEY`. */
export type SnpSigningKey = 'VCEK' | 'VLEK' | 'none' | 'reserved';

/** A firmware version. */
export interface SnpFirmwareVersion {
  readonly major: number;
  readonly minor: number;
  readonly build: number;
}

/**
 * An attestation report of SEV-SNP (SEV-SNP ABI, table 23) as its bytes say it. Nothing is verified: neither the signature,
 * nor that a field makes sense. Buffers share the memory of the report.
 */
export interface SnpReport {
  readonly version: number;
  readonly guestSvn: number;
  readonly policy: SnpPolicy;
  readonly familyId: Buffer;
  readonly imageId: Buffer;
  readonly vmpl: number;
  readonly signatureAlgorithm: number;
  readonly currentTcb: SnpTcb;
  readonly platform: SnpPlatform;
  readonly signingKey: SnpSigningKey;
  /** Whether the digest of the author's key is in the report. */
  readonly authorKeyEnabled: boolean;
  /** The chip id was masked when the report was made: it is zero. */
  readonly chipKeyMasked: boolean;
  readonly reportData: Buffer;
  readonly measurement: Buffer;
  readonly hostData: Buffer;
  readonly idKeyDigest: Buffer;
  readonly authorKeyDigest: Buffer;
  readonly reportId: Buffer;
  readonly migrationAgentReportId: Buffer;
  readonly reportedTcb: SnpTcb;
  /** Undefined in reports of version 2, which do not say it, and for models that are not known. */
  readonly generation?: SnpGeneration;
  readonly processor: { readonly family: number; readonly model: number; readonly stepping: number };
  readonly chipId: Buffer;
  readonly committedTcb: SnpTcb;
  readonly launchTcb: SnpTcb;
  readonly current: SnpFirmwareVersion;
  readonly committed: SnpFirmwareVersion;
  /** The bytes that the signature covers. */
  readonly signed: Buffer;
  /** R and S of the signature, big-endian, 48 bytes each. */
  readonly signature: Buffer;
}

/** Guest policy (SEV-SNP ABI, table 9). */
export interface SnpPolicy {
  readonly abiMajor: number;
  readonly abiMinor: number;
  readonly smtAllowed: boolean;
  readonly migrationAgentAllowed: boolean;
  readonly debugAllowed: boolean;
  readonly singleSocket: boolean;
  readonly cxlAllowed: boolean;
  readonly memAes256Xts: boolean;
  readonly raplDisabled: boolean;
  readonly ciphertextHiding: boolean;
  readonly pageSwapDisabled: boolean;
  /** Bit 17, which has to be one. */
  readonly reservedOne: boolean;
}

/** Platform information (SEV-SNP ABI, table 24). */
export interface SnpPlatform {
  readonly smtEnabled: boolean;
  readonly tsmeEnabled: boolean;
  readonly eccEnabled: boolean;
  readonly raplDisabled: boolean;
  readonly ciphertextHiding: boolean;
  readonly aliasCheckComplete: boolean;
}

const signingKeys: Readonly<Record<number, SnpSigningKey>> = { 0: 'VCEK', 1: 'VLEK', 7: 'none' };

/**
 * Parses the 1184 bytes of a report.
 *
 * @throws SealpodError EV_FORMAT where the length is another, or the signature has bytes where none may be
 */
export function parseSnpReport(report: Uint8Array): SnpReport {
  const bytes = Buffer.from(report.buffer, report.byteOffset, report.byteLength);
  if (bytes.length !== snpReportBytes) {
    throw new SealpodError('EV_FORMAT', 'an SNP report has another length', {
      expected: `${snpReportBytes} bytes`,
      actual: `${bytes.length}`,
    });
  }
  const field = (at: number, length: number): Buffer => bytes.subarray(at, at + length);
  const version = bytes.readUInt32LE(0);
  const keyInfo = bytes.readUInt32LE(0x48);
  const processor = { family: bytes[0x188] ?? 0, model: bytes[0x189] ?? 0, stepping: bytes[0x18a] ?? 0 };
  const generation = version < 3 ? undefined : snpGenerationOf(processor.family, processor.model);
  const tcb = (at: number): SnpTcb => parseSnpTcb(field(at, tcbBytes), generation);
  return {
    version,
    guestSvn: bytes.readUInt32LE(4),
    policy: parsePolicy(bytes.readBigUInt64LE(8)),
    familyId: field(0x10, 16),
    imageId: field(0x20, 16),
    vmpl: bytes.readUInt32LE(0x30),
    signatureAlgorithm: bytes.readUInt32LE(0x34),
    currentTcb: tcb(0x38),
    platform: parsePlatform(bytes.readBigUInt64LE(0x40)),
    authorKeyEnabled: (keyInfo & 1) !== 0,
    chipKeyMasked: (keyInfo & 2) !== 0,
    signingKey: signingKeys[(keyInfo >> 2) & 7] ?? 'reserved',
    reportData: field(0x50, 64),
    measurement: field(0x90, 48),
    hostData: field(0xc0, 32),
    idKeyDigest: field(0xe0, 48),
    authorKeyDigest: field(0x110, 48),
    reportId: field(0x140, 32),
    migrationAgentReportId: field(0x160, 32),
    reportedTcb: tcb(0x180),
    ...(generation === undefined ? {} : { generation }),
    processor,
    chipId: field(0x1a0, 64),
    committedTcb: tcb(0x1e0),
    current: firmwareVersion(bytes, 0x1e8),
    committed: firmwareVersion(bytes, 0x1ec),
    launchTcb: tcb(0x1f0),
    signed: field(0, snpSignedBytes),
    signature: parseSignature(field(snpSignedBytes, 512)),
  };
}

function firmwareVersion(bytes: Buffer, at: number): SnpFirmwareVersion {
  return { build: bytes[at] ?? 0, minor: bytes[at + 1] ?? 0, major: bytes[at + 2] ?? 0 };
}

function parsePolicy(policy: bigint): SnpPolicy {
  const bit = bitOf(policy);
  return {
    abiMinor: Number(policy & 0xffn),
    abiMajor: Number((policy >> 8n) & 0xffn),
    smtAllowed: bit(16n),
    reservedOne: bit(17n),
    migrationAgentAllowed: bit(18n),
    debugAllowed: bit(19n),
    singleSocket: bit(20n),
    cxlAllowed: bit(21n),
    memAes256Xts: bit(22n),
    raplDisabled: bit(23n),
    ciphertextHiding: bit(24n),
    pageSwapDisabled: bit(25n),
  };
}

function parsePlatform(information: bigint): SnpPlatform {
  const bit = bitOf(information);
  return {
    smtEnabled: bit(0n),
    tsmeEnabled: bit(1n),
    eccEnabled: bit(2n),
    raplDisabled: bit(3n),
    ciphertextHiding: bit(4n),
    aliasCheckComplete: bit(5n),
  };
}

function bitOf(value: bigint): (position: bigint) => boolean {
  return (position) => ((value >> position) & 1n) === 1n;
}

/** R and S are little-endian in 72 bytes each, of which P-384 uses 48. */
function parseSignature(bytes: Buffer): Buffer {
  const scalar = (at: number): Buffer => Buffer.from(bytes.subarray(at, at + 48)).reverse();
  const unused = [bytes.subarray(48, 72), bytes.subarray(120)];
  if (unused.some((range) => range.some((byte) => byte !== 0)))
    throw new SealpodError('EV_FORMAT', 'the signature of an SNP report has bytes beyond its scalars');
  return Buffer.concat([scalar(0), scalar(72)]);
}
