import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { SealpodError } from '../errors.ts';
import { Algorithm, Curve, hashName } from './constants.ts';
import { TpmReader } from './reader.ts';
import { sized, uint16, uint32 } from './writer.ts';

/** TPMT_SYM_DEF_OBJECT; undefined stands for TPM_ALG_NULL. */
export interface SymmetricDefinition {
  readonly algorithm: number;
  readonly keyBits: number;
  readonly mode: number;
}

/** A scheme with one hash; undefined stands for TPM_ALG_NULL. */
export interface Scheme {
  readonly algorithm: number;
  readonly hash: number;
}

export interface EccParameters {
  readonly kind: 'ecc';
  /** TPM_ECC_CURVE. */
  readonly curve: number;
  readonly kdf?: Scheme;
  /** Coordinates as the TPM gave them; empty in a template. */
  readonly x: Buffer;
  readonly y: Buffer;
}

export interface RsaParameters {
  readonly kind: 'rsa';
  readonly keyBits: number;
  /** 0 stands for 65537. */
  readonly exponent: number;
  /** Empty in a template. */
  readonly modulus: Buffer;
}

/** TPMT_PUBLIC of an asymmetric key (Part 2 §12.2.4). */
export interface PublicArea {
  /** TPM_ALG_ID of the name hash. */
  readonly nameAlgorithm: number;
  /** TPMA_OBJECT bits. */
  readonly attributes: number;
  readonly authPolicy: Buffer;
  readonly symmetric?: SymmetricDefinition;
  readonly scheme?: Scheme;
  readonly key: EccParameters | RsaParameters;
}

/** Reads a TPMT_PUBLIC of type RSA or ECC. @throws SealpodError EV_FORMAT (or `code` of the reader given) */
export function parsePublicArea(bytes: Uint8Array): PublicArea {
  const reader = new TpmReader(bytes, 'TPMT_PUBLIC');
  const type = reader.uint16();
  if (type !== Algorithm.rsa && type !== Algorithm.ecc) throw reader.fail(`key type 0x${type.toString(16)}`);
  const nameAlgorithm = reader.uint16();
  const attributes = reader.uint32();
  const authPolicy = reader.sized();
  const symmetric = parseSymmetric(reader);
  const scheme = parseScheme(reader);
  let key: PublicArea['key'];
  if (type === Algorithm.ecc) {
    const curve = reader.uint16();
    const kdf = parseScheme(reader);
    key = { kind: 'ecc', curve, ...(kdf === undefined ? {} : { kdf }), x: reader.sized(), y: reader.sized() };
  } else {
    key = { kind: 'rsa', keyBits: reader.uint16(), exponent: reader.uint32(), modulus: reader.sized() };
  }
  reader.end();
  return {
    nameAlgorithm,
    attributes,
    authPolicy,
    ...(symmetric === undefined ? {} : { symmetric }),
    ...(scheme === undefined ? {} : { scheme }),
    key,
  };
}

function parseSymmetric(reader: TpmReader): SymmetricDefinition | undefined {
  const algorithm = reader.uint16();
  return algorithm === Algorithm.null ? undefined : { algorithm, keyBits: reader.uint16(), mode: reader.uint16() };
}

/** Schemes with one hash only: all that signing keys and KDFs here use. */
function parseScheme(reader: TpmReader): Scheme | undefined {
  const algorithm = reader.uint16();
  if (algorithm === Algorithm.null) return undefined;
  if (algorithm === 0x0015) throw reader.fail('scheme RSAES'); // has no hash; no key here has it
  return { algorithm, hash: reader.uint16() };
}

/** Writes a TPMT_PUBLIC. */
export function encodePublicArea(area: PublicArea): Buffer {
  const { key, symmetric } = area;
  const encodedSymmetric =
    symmetric === undefined
      ? uint16(Algorithm.null)
      : Buffer.concat([uint16(symmetric.algorithm), uint16(symmetric.keyBits), uint16(symmetric.mode)]);
  const parameters =
    key.kind === 'ecc'
      ? [uint16(key.curve), encodeScheme(key.kdf), sized(key.x), sized(key.y)]
      : [uint16(key.keyBits), uint32(key.exponent), sized(key.modulus)];
  return Buffer.concat([
    uint16(key.kind === 'ecc' ? Algorithm.ecc : Algorithm.rsa),
    uint16(area.nameAlgorithm),
    uint32(area.attributes),
    sized(area.authPolicy),
    encodedSymmetric,
    encodeScheme(area.scheme),
    ...parameters,
  ]);
}

function encodeScheme(scheme: Scheme | undefined): Buffer {
  return scheme === undefined ? uint16(Algorithm.null) : Buffer.concat([uint16(scheme.algorithm), uint16(scheme.hash)]);
}

/**
 * The object's name: name algorithm, then the hash of its public area (Part 1 §16).
 * @param encoded the TPMT_PUBLIC exactly as the TPM gave it
 * @throws SealpodError EV_FORMAT for a name algorithm we cannot compute
 */
export function objectName(encoded: Uint8Array): Buffer {
  const { nameAlgorithm } = parsePublicArea(encoded);
  const hash = hashName(nameAlgorithm);
  if (hash === undefined) {
    throw new SealpodError('EV_FORMAT', 'unknown name algorithm', { actual: `0x${nameAlgorithm.toString(16)}` });
  }
  return Buffer.concat([uint16(nameAlgorithm), createHash(hash).update(encoded).digest()]);
}

const curveNames: Readonly<Record<number, readonly [name: string, bytes: number]>> = {
  [Curve.p256]: ['P-256', 32],
  [Curve.p384]: ['P-384', 48],
  [Curve.p521]: ['P-521', 66],
};

/** The public key itself. @throws SealpodError EV_FORMAT where it is no valid key */
export function publicAreaKey({ key }: PublicArea): KeyObject {
  try {
    if (key.kind === 'rsa') {
      const exponent = uint32(key.exponent === 0 ? 65_537 : key.exponent);
      const e = exponent.subarray(exponent.findIndex((byte) => byte !== 0)).toString('base64url');
      return createPublicKey({ key: { kty: 'RSA', n: key.modulus.toString('base64url'), e }, format: 'jwk' });
    }
    const [crv, size] = curveNames[key.curve] ?? [];
    if (crv === undefined || size === undefined) throw new RangeError(`unknown curve 0x${key.curve.toString(16)}`);
    return createPublicKey({
      key: { kty: 'EC', crv, x: coordinate(key.x, size), y: coordinate(key.y, size) },
      format: 'jwk',
    });
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'the public area holds no valid key', { cause });
  }
}

/** TPMs may leave leading zeros of a coordinate out. */
function coordinate(bytes: Buffer, size: number): string {
  if (bytes.length > size) throw new RangeError('coordinate too long');
  return Buffer.concat([Buffer.alloc(size - bytes.length), bytes]).toString('base64url');
}
