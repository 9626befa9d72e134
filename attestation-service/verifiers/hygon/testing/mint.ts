import { createHash, randomBytes } from 'node:crypto';
import {
  csvPageBytes,
  type HygonCertificate,
  hygonAuthorityBytes,
  hygonKeyBytes,
  hygonUsage,
  parseHygonAuthority,
  type Sm2PublicKey,
} from '@sealpod/protocol/hygon';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { Sm2Point, sm2Bytes, sm2Digest, sm2Number, sm2Order } from '../sm2.ts';

/** A key pair of a test. */
export interface TestKey {
  readonly secret: bigint;
  readonly publicKey: Sm2PublicKey;
}

export function newKey(identity: string): TestKey {
  const secret = (sm2Number(randomBytes(32)) % (sm2Order - 2n)) + 1n;
  const { x, y } = Sm2Point.BASE.multiply(secret).toAffine();
  return { secret, publicKey: { x: sm2Bytes(x), y: sm2Bytes(y), identity: Buffer.from(identity) } };
}

/** Signs as GB/T 32918.2 section 6.1 says, and writes the numbers as Hygon does. */
export function signInto({ secret, publicKey }: TestKey, message: Buffer, target: Buffer, at: number): void {
  const k = (sm2Number(randomBytes(32)) % (sm2Order - 2n)) + 1n;
  const r = (sm2Digest(publicKey, message) + Sm2Point.BASE.multiply(k).toAffine().x) % sm2Order;
  const difference = (k - ((r * secret) % sm2Order) + sm2Order) % sm2Order;
  const s = (inverse(1n + secret) * difference) % sm2Order;
  Buffer.from(sm2Bytes(r)).reverse().copy(target, at);
  Buffer.from(sm2Bytes(s))
    .reverse()
    .copy(target, at + 72);
}

function inverse(value: bigint): bigint {
  let [result, base, exponent] = [1n, value % sm2Order, sm2Order - 2n];
  for (; exponent > 0n; exponent >>= 1n) {
    if ((exponent & 1n) === 1n) result = (result * base) % sm2Order;
    base = (base * base) % sm2Order;
  }
  return result;
}

function writeKey({ publicKey }: TestKey, target: Buffer, at: number, identityAt: number): void {
  target.writeUInt32LE(3, at);
  Buffer.from(publicKey.x)
    .reverse()
    .copy(target, at + 4);
  Buffer.from(publicKey.y)
    .reverse()
    .copy(target, at + 76);
  target.writeUInt16LE(publicKey.identity.length, identityAt);
  publicKey.identity.copy(target, identityAt + 2);
}

/** What a test makes another about a certificate; changes are made before it is signed. */
export interface CertificateFaults {
  readonly usage?: number;
  readonly signer?: Buffer;
  readonly by?: TestKey;
  readonly signatureUsage?: number;
  readonly signatureAlgorithm?: number;
}

/** A test's Hygon: root, signing key, and one chip with its platform key. */
export class TestHygon {
  readonly root = newKey('TEST-HRK');
  readonly signing = newKey('TEST-HSK');
  readonly chip = newKey('TEST-CEK');
  readonly platform = newKey('TEST-PEK');
  readonly rootId = randomBytes(16);

  rootBytes(): Buffer {
    return this.#authority(this.root, this.rootId, hygonUsage.hrk, {});
  }

  rootCertificate(): HygonCertificate {
    return parseHygonAuthority(this.rootBytes());
  }

  hsk(faults: CertificateFaults = {}): Buffer {
    return this.#authority(this.signing, randomBytes(16), hygonUsage.hsk, faults);
  }

  cek(faults: CertificateFaults = {}): Buffer {
    return keyCertificate(this.chip, hygonUsage.cek, this.signing, hygonUsage.hsk, faults);
  }

  pek(faults: CertificateFaults = {}): Buffer {
    return keyCertificate(this.platform, hygonUsage.pek, this.chip, hygonUsage.cek, faults);
  }

  #authority(key: TestKey, id: Buffer, usage: number, faults: CertificateFaults): Buffer {
    const bytes = Buffer.alloc(hygonAuthorityBytes);
    bytes.writeUInt32LE(1, 0);
    id.copy(bytes, 4);
    (faults.signer ?? this.rootId).copy(bytes, 20);
    bytes.writeUInt32LE(faults.usage ?? usage, 0x24);
    writeKey(key, bytes, 0x40, 0xd4);
    signInto(faults.by ?? this.root, bytes.subarray(0, 576), bytes, 576);
    return bytes;
  }

  /** A report in its page. `change` is made before it is signed. */
  report(version: 1 | 2, fields: CsvFields, change: (page: Buffer) => void = () => undefined): Buffer {
    const page = Buffer.alloc(csvPageBytes);
    fields.reportData.copy(page, 0x40);
    (fields.measure ?? Buffer.alloc(32, 0xaa)).copy(page, 0x90);
    page.writeUInt32LE(fields.policy ?? 0x45, 0xb0);
    page.writeUInt32LE(hygonUsage.pek, 0xb4);
    page.writeUInt32LE(4, 0xb8);
    if (version === 2) {
      page.writeUInt32LE(1900, 0xbc);
      for (const [index, value] of (fields.rtmrs ?? []).entries()) value.copy(page, 0xd0 + index * 32);
    }
    change(page);
    const length = version === 1 ? 0xb4 : 0x400;
    if (version === 1) {
      const mask = randomBytes(4);
      for (let at = 0; at < 0xbc; at += 1) page[at] = (page[at] ?? 0) ^ (mask[at % 4] ?? 0);
      mask.copy(page, 0xbc);
    }
    signInto(this.platform, page.subarray(0, length), page, version === 1 ? 0xc0 : length);
    return page;
  }
}

/** Fields of a minted report. */
export interface CsvFields {
  readonly reportData: Buffer;
  readonly measure?: Buffer;
  readonly policy?: number;
  readonly rtmrs?: readonly Buffer[];
}

function keyCertificate(
  key: TestKey,
  usage: number,
  issuer: TestKey,
  issuerUsage: number,
  faults: CertificateFaults,
): Buffer {
  const bytes = Buffer.alloc(hygonKeyBytes);
  bytes.writeUInt32LE(1, 0);
  bytes.set([1, 3], 4);
  bytes.writeUInt32LE(faults.usage ?? usage, 8);
  bytes.writeUInt32LE(4, 12);
  writeKey(key, bytes, 16, 164);
  bytes.writeUInt32LE(faults.signatureUsage ?? issuerUsage, 1044);
  bytes.writeUInt32LE(faults.signatureAlgorithm ?? 4, 1048);
  signInto(faults.by ?? issuer, bytes.subarray(0, 1044), bytes, 1052);
  // As on real chips: the second signature is the owner's, which nothing here relies on.
  bytes.writeUInt32LE(hygonUsage.oca, 1564);
  return bytes;
}

const octets = (bytes: Buffer, start: number, length: number): number[] => [...bytes.subarray(start, start + length)];

function pointJson(bytes: Buffer, at: number): JsonObject {
  return { g: bytes.readUInt32LE(at), x: octets(bytes, at + 4, 72), y: octets(bytes, at + 76, 72) };
}

/** The members of a signing key's certificate, as serde writes them. */
export function authorityJson(bytes: Buffer): JsonObject {
  return {
    body: {
      preamble: {
        ver: bytes.readUInt32LE(0),
        data: {
          kid: octets(bytes, 4, 16),
          sid: octets(bytes, 20, 16),
          usage: bytes.readUInt32LE(0x24),
          reserved: octets(bytes, 0x28, 24),
        },
      },
      pubkey: pointJson(bytes, 0x40),
      uid_size: bytes.readUInt16LE(0xd4),
      user_id: octets(bytes, 0xd6, 254),
      reserved: octets(bytes, 0x1d4, 108),
    },
    signature: { r: octets(bytes, 576, 72), s: octets(bytes, 648, 72) },
    _reserved: octets(bytes, 720, 112),
  };
}

/** The members of a chip's or platform's certificate, as serde writes them. */
export function keyJson(bytes: Buffer): JsonObject {
  return {
    body: {
      ver: bytes.readUInt32LE(0),
      data: {
        firmware: { major: bytes[4] ?? 0, minor: bytes[5] ?? 0 },
        reserved1: bytes.readUInt16LE(6),
        pubkey: { usage: bytes.readUInt32LE(8), algo: bytes.readUInt32LE(12), key: pointJson(bytes, 16) },
        uid_size: bytes.readUInt16LE(164),
        user_id: octets(bytes, 166, 254),
        sid: octets(bytes, 420, 16),
        reserved2: octets(bytes, 436, 608),
      },
    },
    sigs: [1044, 1564].map((at) => ({
      usage: bytes.readUInt32LE(at),
      algo: bytes.readUInt32LE(at + 4),
      signature: { r: octets(bytes, at + 8, 72), s: octets(bytes, at + 80, 72) },
      _reserved: octets(bytes, at + 152, 368),
    })),
  };
}

/** An accelerator's report, signed by the chip's key, as serde writes it. `change` is made before it is signed. */
export function dcuReport(
  { chip }: TestHygon,
  serialNumber: string,
  userData: Buffer,
  change: (body: Buffer) => void = () => undefined,
): JsonObject {
  const body = Buffer.alloc(252);
  body.writeUInt32LE(1, 0);
  body.write(serialNumber, 4, 'latin1');
  userData.copy(body, 20);
  body.fill(0xbb, 84, 116);
  body.writeUInt32LE(hygonUsage.cek, 244);
  body.writeUInt32LE(4, 248);
  change(body);
  const signature = Buffer.alloc(144);
  signInto(chip, body, signature, 0);
  return dcuJson(body, signature);
}

export function dcuJson(body: Buffer, signature: Buffer): JsonObject {
  return {
    body: {
      version: body.readUInt32LE(0),
      chip_id: octets(body, 4, 16),
      user_data: octets(body, 20, 64),
      measure: octets(body, 84, 32),
      reserved: octets(body, 116, 128),
      sig_usage: body.readUInt32LE(244),
      sig_algo: body.readUInt32LE(248),
    },
    sig: { r: octets(signature, 0, 72), s: octets(signature, 72, 72) },
  };
}

/** An SM3 event log with events of the given registers, and the registers it replays to. */
export function sm3Log(events: readonly (readonly [register: number, data: string])[]): {
  log: Buffer;
  registers: Map<number, Buffer>;
} {
  const word = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const half = (value: number): Buffer => word(value).subarray(0, 2);
  const specId = Buffer.concat([
    Buffer.from('Spec ID Event03\0', 'latin1'),
    Buffer.alloc(8),
    word(1),
    half(0x12),
    half(32),
    Buffer.alloc(1),
  ]);
  const parts = [word(0), word(3), Buffer.alloc(20), word(specId.length), specId];
  const registers = new Map<number, Buffer>();
  for (const [register, data] of events) {
    const digest = createHash('sm3').update(data).digest();
    parts.push(word(register), word(6), word(1), half(0x12), digest, word(Buffer.byteLength(data)), Buffer.from(data));
    const before = registers.get(register) ?? Buffer.alloc(32);
    registers.set(register, createHash('sm3').update(before).update(digest).digest());
  }
  return { log: Buffer.concat([...parts, Buffer.alloc(8, 0xff)]), registers };
}

/** Evidence as the guest sends it. */
export function csvEvidence(
  page: Buffer,
  pek: Buffer,
  more: {
    readonly version?: 1 | 2;
    readonly chain?: { readonly hsk: Buffer; readonly cek: Buffer } | null;
    readonly log?: Buffer;
    readonly serialNumber?: string;
  } = {},
): Record<string, JsonValue> {
  const { version = 2, chain = null, log, serialNumber = 'KPA64911240507' } = more;
  return {
    attestation_report: {
      data: [...page],
      magic: version === 2 ? [...Buffer.from('ATTESTATION_EXT\0', 'latin1')] : new Array<number>(16).fill(0),
      flags: version === 2 ? 1 : 0,
    },
    cert_chain: {
      ...(chain === null ? {} : { hsk_cek: { hsk: authorityJson(chain.hsk), cek: keyJson(chain.cek) } }),
      pek: keyJson(pek),
    },
    serial_number: [...Buffer.concat([Buffer.from(serialNumber), Buffer.alloc(64 - serialNumber.length)])],
    cc_eventlog: log === undefined ? null : log.toString('base64'),
  };
}
