import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { Issued } from '../../testing/authority.ts';
import { platform, type TestIntel } from './authority.ts';
import { qeSigners } from './collateral.ts';

export * from './authority.ts';
export * from './collateral.ts';

/** Where a structure has its fields: offset and length. Fields of 2 and 4 bytes may be given as numbers. */
type Layout = Readonly<Record<string, readonly [number, number]>>;
type Values<Fields extends Layout> = { readonly [Name in keyof Fields]?: Buffer | number };

export const headerFields = {
  version: [0, 2],
  attestationKeyType: [2, 2],
  teeType: [4, 4],
  /** SGX: versions of the quoting enclave and of the PCE. */
  reserved: [8, 4],
  vendorId: [12, 16],
  userData: [28, 20],
} as const satisfies Layout;

export const enclaveFields = {
  cpuSvn: [0, 16],
  miscSelect: [16, 4],
  reserved1: [20, 12],
  isvExtProdId: [32, 16],
  attributes: [48, 16],
  mrEnclave: [64, 32],
  reserved2: [96, 32],
  mrSigner: [128, 32],
  reserved3: [160, 32],
  configId: [192, 64],
  isvProdId: [256, 2],
  isvSvn: [258, 2],
  configSvn: [260, 2],
  reserved4: [262, 42],
  isvFamilyId: [304, 16],
  reportData: [320, 64],
} as const satisfies Layout;

export const tdFields = {
  teeTcbSvn: [0, 16],
  mrSeam: [16, 48],
  mrSignerSeam: [64, 48],
  seamAttributes: [112, 8],
  tdAttributes: [120, 8],
  xfam: [128, 8],
  mrTd: [136, 48],
  mrConfigId: [184, 48],
  mrOwner: [232, 48],
  mrOwnerConfig: [280, 48],
  rtmr0: [328, 48],
  rtmr1: [376, 48],
  rtmr2: [424, 48],
  rtmr3: [472, 48],
  reportData: [520, 64],
  /** These two in TDX 1.5 only. */
  teeTcbSvn2: [584, 16],
  mrServiceTd: [600, 48],
} as const satisfies Layout;

/** Version of the quote, and of the report in it; size and type of the body in quotes of version 5. */
const kinds = {
  'sgx-3': { version: 3, tee: 'sgx', size: 384, type: 1 },
  'sgx-4': { version: 4, tee: 'sgx', size: 384, type: 1 },
  'sgx-5': { version: 5, tee: 'sgx', size: 384, type: 1 },
  'tdx-4': { version: 4, tee: 'tdx', size: 584, type: 2 },
  'tdx-5-1.0': { version: 5, tee: 'tdx', size: 584, type: 2 },
  'tdx-5-1.5': { version: 5, tee: 'tdx', size: 648, type: 3 },
} as const;
export type QuoteKind = keyof typeof kinds;

/** What a test makes another about a quote. All of it is set before what depends on it is signed or hashed. */
export interface QuoteOptions {
  readonly header?: Values<typeof headerFields>;
  /** Of quotes of TDX. */
  readonly td?: Values<typeof tdFields>;
  /** Of quotes of SGX. */
  readonly enclave?: Values<typeof enclaveFields>;
  /** Type and size of the body, quotes of version 5. */
  readonly descriptor?: Buffer;
  /** The report of the quoting enclave; its report data is the digest of key and authentication data by default. */
  readonly qe?: Values<typeof enclaveFields>;
  readonly authenticationData?: Buffer;
  /** Whose certificate the quote brings, and who signed the report of the quoting enclave; default the test's platform. */
  readonly machine?: Issued;
  /** Signs the report of the quoting enclave instead. */
  readonly qeSigner?: KeyObject;
  /** Signs the quote instead of the attestation key that it names. */
  readonly quoteSigner?: KeyObject;
  /** PEM of the chain, type 5. */
  readonly chain?: string;
  /** Instead of type 5. */
  readonly certification?: { readonly type: number; readonly content: Buffer };
  /** Outer type of versions 4 and 5, 6 by default. */
  readonly outerType?: number;
  /** Bytes behind the certification data, inside of the signature. */
  readonly excess?: Buffer;
}

const vendorId = Buffer.from('939a7233f79c4ca9940a0db3957f0607', 'hex');

/** A quote of the test's platform, valid and at the best level where the options do not make it otherwise. */
export function mintQuote(intel: TestIntel, kind: QuoteKind, options: QuoteOptions = {}): Buffer {
  const { version, tee, size, type } = kinds[kind];
  const header = fill(48, headerFields, {
    version,
    attestationKeyType: 2,
    teeType: tee === 'tdx' ? 0x81 : 0,
    reserved: tee === 'sgx' ? Buffer.from([4, 0, platform.pceSvn, 0]) : 0,
    vendorId,
    ...options.header,
  });
  const body = tee === 'tdx' ? tdReport(kind, size, options.td) : enclaveReport(options.enclave);
  const descriptor = version === 5 ? (options.descriptor ?? bodyDescriptor(type, size)) : Buffer.alloc(0);
  const signed = Buffer.concat([header, descriptor, body]);
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const attestationKey = publicKey.export({ format: 'der', type: 'spki' }).subarray(-64);
  const section = Buffer.concat([
    signP256(signed, options.quoteSigner ?? privateKey),
    attestationKey,
    certify(intel, version, tee, attestationKey, options),
    options.excess ?? Buffer.alloc(0),
  ]);
  return Buffer.concat([signed, uint32(section.length), section]);
}

/** Where the parts of a minted quote begin, so that a test can change bytes after they were signed. */
export function quoteParts(kind: QuoteKind): {
  readonly body: number;
  readonly signature: number;
  readonly attestationKey: number;
  readonly qeReport: number;
  readonly qeSignature: number;
} {
  const { version, size } = kinds[kind];
  const body = 48 + (version === 5 ? 6 : 0);
  const signature = body + size + 4;
  const qeReport = signature + 128 + (version === 3 ? 0 : 6);
  return { body, signature, attestationKey: signature + 64, qeReport, qeSignature: qeReport + 384 };
}

function certify(
  intel: TestIntel,
  version: number,
  tee: 'sgx' | 'tdx',
  attestationKey: Buffer,
  options: QuoteOptions,
): Buffer {
  const { machine = intel.machine, authenticationData = Buffer.from(Array.from({ length: 32 }, (_, index) => index)) } =
    options;
  const reportData = Buffer.alloc(64);
  createHash('sha256').update(attestationKey).update(authenticationData).digest().copy(reportData);
  const report = fill(384, enclaveFields, {
    cpuSvn: Buffer.from(platform.tcb),
    attributes: Buffer.from('15000000000000000700000000000000', 'hex'),
    mrEnclave: Buffer.alloc(32, 0x9e),
    mrSigner: Buffer.from(qeSigners[tee], 'hex'),
    isvProdId: tee === 'tdx' ? 2 : 1,
    isvSvn: 4,
    reportData,
    ...options.qe,
  });
  const { type, content } = options.certification ?? {
    type: 5,
    content: Buffer.from(`${options.chain ?? intel.chain(machine)}\0`),
  };
  const inner = Buffer.concat([
    report,
    signP256(report, options.qeSigner ?? machine.key),
    uint16(authenticationData.length),
    authenticationData,
    uint16(type),
    uint32(content.length),
    content,
  ]);
  return version === 3 ? inner : Buffer.concat([uint16(options.outerType ?? 6), uint32(inner.length), inner]);
}

function tdReport(kind: QuoteKind, size: number, values: Values<typeof tdFields> = {}): Buffer {
  const current = kind === 'tdx-5-1.5';
  const measurement = (byte: number): Buffer => Buffer.alloc(48, byte);
  const versions = Buffer.alloc(16);
  Buffer.from(current ? [4, 1, 5] : [3, 0, 5]).copy(versions);
  return fill(size, tdFields, {
    teeTcbSvn: versions,
    mrSeam: measurement(0x5e),
    // Bit 28: SEPT_VE_DISABLE.
    tdAttributes: Buffer.from('0000001000000000', 'hex'),
    xfam: Buffer.from('e702060000000000', 'hex'),
    mrTd: measurement(0x7d),
    rtmr0: measurement(0xa0),
    rtmr1: measurement(0xa1),
    rtmr2: measurement(0xa2),
    rtmr3: measurement(0),
    ...(current ? { teeTcbSvn2: versions } : {}),
    ...values,
  });
}

function enclaveReport(values: Values<typeof enclaveFields> = {}): Buffer {
  return fill(384, enclaveFields, {
    cpuSvn: Buffer.from(platform.tcb),
    attributes: Buffer.from('05000000000000000700000000000000', 'hex'),
    mrEnclave: Buffer.alloc(32, 0xe1),
    mrSigner: Buffer.alloc(32, 0xe2),
    ...values,
  });
}

function fill<Fields extends Layout>(size: number, fields: Fields, values: Values<Fields>): Buffer {
  const bytes = Buffer.alloc(size);
  for (const [name, [at, length]] of Object.entries(fields)) {
    const value = values[name];
    if (value === undefined) continue;
    if (typeof value === 'number') bytes.writeUIntLE(value, at, length);
    else if (value.length === length && at + length <= size) value.copy(bytes, at);
    else throw new RangeError(`${name} must be of ${length} bytes, in a structure that has it`);
  }
  return bytes;
}

function bodyDescriptor(type: number, size: number): Buffer {
  return Buffer.concat([uint16(type), uint32(size)]);
}

function signP256(bytes: Buffer, key: KeyObject): Buffer {
  return sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' });
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
