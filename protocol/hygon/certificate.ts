import { SealpodError } from '../errors.ts';

/** What a key of Hygon's chain is for (HYGON CSV API, key usage). */
export const hygonUsage = { hrk: 0x0000, hsk: 0x0013, oca: 0x1001, pek: 0x1002, pdh: 0x1003, cek: 0x1004 } as const;
/** SM2 signature with SM3. */
export const hygonSm2Signature = 4;
const sm2Curve = 3;

/** A point of SM2's curve and the identity that its owner signs under (GB/T 32918.2 section 5.5). */
export interface Sm2PublicKey {
  /** 32 bytes, big-endian. */
  readonly x: Buffer;
  readonly y: Buffer;
  readonly identity: Buffer;
}

/** Two numbers of 32 bytes, big-endian. */
export interface Sm2Signature {
  readonly r: Buffer;
  readonly s: Buffer;
}

/** A signature in a certificate, and what kind of key it says made it. */
export interface HygonCertificateSignature {
  readonly usage: number;
  readonly algorithm: number;
  readonly signature: Sm2Signature;
}

/** A certificate of Hygon's chain: of a root or signing key, or of a chip or platform key. Nothing is verified. */
export interface HygonCertificate {
  readonly usage: number;
  readonly key: Sm2PublicKey;
  /** The bytes that are signed. */
  readonly signed: Buffer;
  readonly signatures: readonly HygonCertificateSignature[];
  /** Identifiers of the key and of its signer, 16 bytes each; certificates of chip and platform keys have none. */
  readonly ids?: { readonly key: Buffer; readonly signer: Buffer };
}

/** Bytes of a certificate of a root or signing key. */
export const hygonAuthorityBytes = 832;
/** Bytes of a certificate of a chip or platform key. */
export const hygonKeyBytes = 2084;
const authoritySigned = 576;
const keySigned = 1044;
const numberBytes = 72;

/** Parses the certificate of a root (HRK) or signing key (HSK). @throws SealpodError EV_FORMAT */
export function parseHygonAuthority(bytes: Buffer): HygonCertificate {
  checkLength(bytes, hygonAuthorityBytes);
  checkVersion(bytes);
  return {
    usage: bytes.readUInt32LE(0x24),
    key: readKey(bytes, 0x40, 0xd4),
    signed: bytes.subarray(0, authoritySigned),
    signatures: [
      // These certificates have one signature, by the root, and say nothing about it.
      { usage: hygonUsage.hrk, algorithm: hygonSm2Signature, signature: readHygonSignature(bytes, authoritySigned) },
    ],
    ids: { key: bytes.subarray(4, 20), signer: bytes.subarray(20, 36) },
  };
}

/** Parses the certificate of a chip (CEK) or platform key (PEK). @throws SealpodError EV_FORMAT */
export function parseHygonKey(bytes: Buffer): HygonCertificate {
  checkLength(bytes, hygonKeyBytes);
  checkVersion(bytes);
  return {
    usage: bytes.readUInt32LE(8),
    key: readKey(bytes, 16, 164),
    signed: bytes.subarray(0, keySigned),
    signatures: [0, 1].map((index) => {
      const at = keySigned + index * 520;
      return {
        usage: bytes.readUInt32LE(at),
        algorithm: bytes.readUInt32LE(at + 4),
        signature: readHygonSignature(bytes, at + 8),
      };
    }),
  };
}

/** Reads a signature: two numbers of 72 bytes, little-endian. A number beyond 32 bytes becomes zero, which never verifies. */
export function readHygonSignature(bytes: Buffer, at: number): Sm2Signature {
  return { r: readNumber(bytes, at), s: readNumber(bytes, at + numberBytes) };
}

function readNumber(bytes: Buffer, at: number): Buffer {
  const field = bytes.subarray(at, at + numberBytes);
  const overflows = field.subarray(32).some((byte) => byte !== 0);
  return overflows ? Buffer.alloc(32) : Buffer.from(field.subarray(0, 32)).reverse();
}

function readKey(bytes: Buffer, at: number, identityAt: number): Sm2PublicKey {
  const curve = bytes.readUInt32LE(at);
  if (curve !== sm2Curve) {
    throw new SealpodError('EV_FORMAT', 'a Hygon certificate has a key on another curve', {
      expected: `SM2 (${sm2Curve})`,
      actual: `${curve}`,
    });
  }
  const length = bytes.readUInt16LE(identityAt);
  if (length > 254) {
    throw new SealpodError('EV_FORMAT', 'the identity of a Hygon key is too long', {
      expected: 'at most 254 bytes',
      actual: `${length}`,
    });
  }
  return {
    x: readNumber(bytes, at + 4),
    y: readNumber(bytes, at + 4 + numberBytes),
    identity: bytes.subarray(identityAt + 2, identityAt + 2 + length),
  };
}

function checkLength(bytes: Buffer, length: number): void {
  if (bytes.length === length) return;
  throw new SealpodError('EV_FORMAT', 'a Hygon certificate is of the wrong size', {
    expected: `${length} bytes`,
    actual: `${bytes.length}`,
  });
}

function checkVersion(bytes: Buffer): void {
  const version = bytes.readUInt32LE(0);
  if (version === 1) return;
  throw new SealpodError('EV_FORMAT', 'a Hygon certificate is of an unknown version', {
    expected: '1',
    actual: `${version}`,
  });
}
