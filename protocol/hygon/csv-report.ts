import { SealpodError } from '../errors.ts';
import { readHygonSignature, type Sm2Signature } from './certificate.ts';

/** What the guest's owner allowed the host to do (HYGON CSV API, guest policy). */
export interface CsvPolicy {
  readonly nodbg: number;
  readonly noks: number;
  readonly es: number;
  readonly nosend: number;
  readonly domain: number;
  readonly csv: number;
  readonly csv3: number;
  readonly asidReuse: number;
  readonly hskVersion: number;
  readonly cekVersion: number;
  readonly apiMajor: number;
  readonly apiMinor: number;
}

/** What firmware from API 1.4 on reports beyond the first version. */
export interface CsvExtension {
  readonly build: number;
  readonly rtmrVersion: number;
  readonly reserved0: Buffer;
  /** Five registers of 32 bytes, SM3. The first is the launch digest. */
  readonly rtmrs: readonly Buffer[];
  readonly reserved1: Buffer;
}

/** An attestation report. Its signature is not verified. */
export interface CsvReport {
  readonly version: 1 | 2;
  readonly userPublicKeyDigest: Buffer;
  readonly vmId: Buffer;
  readonly vmVersion: Buffer;
  readonly reportData: Buffer;
  readonly mnonce: Buffer;
  readonly measure: Buffer;
  readonly policy: CsvPolicy;
  readonly signatureUsage: number;
  readonly signatureAlgorithm: number;
  /** Only in version 1, whose other fields are stored XORed with it. */
  readonly anonce?: number;
  /** Only in version 2. */
  readonly extension?: CsvExtension;
  /** The bytes that are signed, as stored. */
  readonly signed: Buffer;
  readonly signature: Sm2Signature;
}

/** Bytes of the page that holds a report. */
export const csvPageBytes = 4096;
const extensionMagic = Buffer.from('ATTESTATION_EXT\0', 'latin1');
/** Version 1 signs neither the usage nor the algorithm of its signature, nor the value it is masked with. */
const signedBytes = { 1: 0xb4, 2: 0x400 } as const;

/**
 * Parses the page of a report. The magic value and flags, which stand beside it, say which version it is.
 *
 * @throws SealpodError EV_FORMAT
 */
export function parseCsvReport(page: Buffer, magic: Buffer, flags: number): CsvReport {
  if (page.length !== csvPageBytes) {
    throw new SealpodError('EV_FORMAT', 'the CSV report is of the wrong size', {
      expected: `${csvPageBytes} bytes`,
      actual: `${page.length}`,
    });
  }
  const version = versionOf(magic, flags);
  const anonce = version === 1 ? page.subarray(0xbc, 0xc0) : Buffer.alloc(4);
  const field = (start: number, end: number): Buffer =>
    Buffer.from(page.subarray(start, end).map((byte, index) => byte ^ (anonce[index % 4] ?? 0)));
  return {
    version,
    userPublicKeyDigest: field(0, 0x20),
    vmId: field(0x20, 0x30),
    vmVersion: field(0x30, 0x40),
    reportData: field(0x40, 0x80),
    mnonce: field(0x80, 0x90),
    measure: field(0x90, 0xb0),
    policy: parsePolicy(field(0xb0, 0xb4).readUInt32LE()),
    signatureUsage: field(0xb4, 0xb8).readUInt32LE(),
    signatureAlgorithm: field(0xb8, 0xbc).readUInt32LE(),
    ...(version === 1 ? { anonce: anonce.readUInt32LE() } : { extension: parseExtension(page) }),
    signed: page.subarray(0, signedBytes[version]),
    signature: readHygonSignature(page, version === 1 ? 0xc0 : 0x400),
  };
}

function versionOf(magic: Buffer, flags: number): 1 | 2 {
  if (magic.length === 16 && magic.every((byte) => byte === 0)) return 1;
  if (magic.equals(extensionMagic) && flags === 0) return 1;
  if (magic.equals(extensionMagic) && flags === 1) return 2;
  throw new SealpodError('EV_FORMAT', 'the CSV report is of an unknown version', {
    expected: 'no magic value, or that of extended reports with flags 0 or 1',
    actual: `${magic.toString('hex').slice(0, 64)}, flags ${flags}`,
  });
}

function parseExtension(page: Buffer): CsvExtension {
  return {
    build: page.readUInt32LE(0xbc),
    rtmrVersion: page.readUInt16LE(0xc0),
    reserved0: page.subarray(0xc2, 0xd0),
    rtmrs: [0, 1, 2, 3, 4].map((index) => page.subarray(0xd0 + index * 32, 0xf0 + index * 32)),
    reserved1: page.subarray(0x170, 0x400),
  };
}

function parsePolicy(bits: number): CsvPolicy {
  const field = (at: number, width = 1): number => (bits >>> at) & (2 ** width - 1);
  return {
    nodbg: field(0),
    noks: field(1),
    es: field(2),
    nosend: field(3),
    domain: field(4),
    csv: field(5),
    csv3: field(6),
    asidReuse: field(7),
    hskVersion: field(8, 4),
    cekVersion: field(12, 4),
    apiMajor: field(16, 8),
    apiMinor: field(24, 8),
  };
}
