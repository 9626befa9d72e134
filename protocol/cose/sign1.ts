import { constants, type KeyObject, verify } from 'node:crypto';
import { SealpodError } from '../errors.ts';
import {
  asCborArray,
  asCborBytes,
  asCborInteger,
  asCborMap,
  type CborMap,
  CborTag,
  type CborValue,
  decodeCbor,
  encodeCbor,
} from './cbor.ts';

/** Tag of COSE_Sign1 (RFC 9052 section 2). */
export const coseSign1Tag = 18;

/** Labels of header parameters (RFC 9052 section 3.1). */
export const coseHeader = { algorithm: 1, critical: 2, contentType: 3, keyId: 4 } as const;

/** A signed message as it stands. Its signature is not verified. */
export interface CoseSign1 {
  /** What is signed of the protected header: its bytes. */
  readonly protectedBytes: Buffer;
  readonly protectedHeader: CborMap;
  readonly unprotectedHeader: CborMap;
  readonly payload: Buffer;
  readonly signature: Buffer;
  /** Of the protected header; undefined where it names none. */
  readonly algorithm: number | undefined;
}

/**
 * Parses COSE_Sign1 with an attached payload, tagged or not (RFC 9052 section 4.2).
 *
 * @throws SealpodError EV_FORMAT, also for a header parameter that stands in both headers or is critical and not understood
 * @throws SealpodError REQUEST_TOO_LARGE
 */
export function parseCoseSign1(bytes: Uint8Array, limits: { what: string; maxBytes?: number }): CoseSign1 {
  const { what } = limits;
  const item = decodeCbor(bytes, { ...limits, tags: [coseSign1Tag] });
  const parts = asCborArray(item instanceof CborTag ? item.value : item, what);
  if (parts.length !== 4) throw new SealpodError('EV_FORMAT', `${what} is no COSE_Sign1`, { expected: 'four parts' });
  const protectedBytes = asCborBytes(parts[0], `protected header of ${what}`);
  // An empty protected header may be written as no bytes at all.
  const protectedHeader =
    protectedBytes.length === 0
      ? new Map<CborValue, CborValue>()
      : asCborMap(decodeCbor(protectedBytes, { what: `protected header of ${what}` }), `protected header of ${what}`);
  const unprotectedHeader = asCborMap(parts[1], `unprotected header of ${what}`);
  checkHeaders(protectedHeader, unprotectedHeader, what);
  const algorithm = protectedHeader.get(coseHeader.algorithm);
  return {
    protectedBytes,
    protectedHeader,
    unprotectedHeader,
    payload: asCborBytes(parts[2], `payload of ${what}`),
    signature: asCborBytes(parts[3], `signature of ${what}`),
    algorithm: algorithm === undefined ? undefined : asCborInteger(algorithm, `algorithm of ${what}`),
  };
}

function checkHeaders(protectedHeader: CborMap, unprotectedHeader: CborMap, what: string): void {
  const twice = [...protectedHeader.keys()].find((name) => unprotectedHeader.has(name));
  if (twice !== undefined) {
    throw new SealpodError('EV_FORMAT', `a header parameter of ${what} stands in both headers`, {
      actual: String(twice),
    });
  }
  const understood: readonly CborValue[] = Object.values(coseHeader);
  const critical = protectedHeader.get(coseHeader.critical);
  const names = critical === undefined ? [] : asCborArray(critical, `critical parameters of ${what}`);
  const unknown = names.find((name) => !understood.includes(name));
  if (unknown !== undefined || unprotectedHeader.has(coseHeader.critical)) {
    throw new SealpodError('EV_FORMAT', `${what} has a critical parameter that is not understood`, {
      actual: String(unknown ?? 'crit in the unprotected header'),
    });
  }
}

interface Algorithm {
  readonly name: string;
  readonly hash: string | null;
  readonly key: 'ec' | 'rsa' | 'ed25519';
}

/** Signature algorithms (RFC 9053 section 2, RFC 8230 section 2, RFC 9864). */
const algorithms: Readonly<Record<number, Algorithm>> = {
  [-7]: { name: 'ES256', hash: 'sha256', key: 'ec' },
  [-35]: { name: 'ES384', hash: 'sha384', key: 'ec' },
  [-36]: { name: 'ES512', hash: 'sha512', key: 'ec' },
  [-9]: { name: 'ESP256', hash: 'sha256', key: 'ec' },
  [-51]: { name: 'ESP384', hash: 'sha384', key: 'ec' },
  [-52]: { name: 'ESP512', hash: 'sha512', key: 'ec' },
  [-37]: { name: 'PS256', hash: 'sha256', key: 'rsa' },
  [-38]: { name: 'PS384', hash: 'sha384', key: 'rsa' },
  [-39]: { name: 'PS512', hash: 'sha512', key: 'rsa' },
  [-8]: { name: 'EdDSA', hash: null, key: 'ed25519' },
  [-19]: { name: 'Ed25519', hash: null, key: 'ed25519' },
};

const curveOfHash: Readonly<Record<string, string>> = {
  sha256: 'prime256v1',
  sha384: 'secp384r1',
  sha512: 'secp521r1',
};

/** The name of a signature algorithm, for explanations. */
export function coseAlgorithmName(algorithm: number | undefined): string {
  return algorithm === undefined ? 'none' : (algorithms[algorithm]?.name ?? `${algorithm}`);
}

/**
 * Whether `key` made the signature, with the algorithm of the protected header, over payload and `externalData`. Algorithm
 * and key have to fit: ECDSA with SHA-256, SHA-384 and SHA-512 goes with P-256, P-384 and P-521 (RFC 9053 section 2.1
 * recommends it). False for an algorithm that is not known here.
 */
export function verifyCoseSign1(
  { algorithm, protectedBytes, payload, signature }: CoseSign1,
  key: KeyObject,
  externalData: Uint8Array = Buffer.alloc(0),
): boolean {
  const used = algorithm === undefined ? undefined : algorithms[algorithm];
  if (used === undefined || used.key !== key.asymmetricKeyType) return false;
  if (used.key === 'ec' && key.asymmetricKeyDetails?.namedCurve !== curveOfHash[used.hash ?? '']) return false;
  const signed = signatureStructure(protectedBytes, externalData, payload);
  if (used.key === 'ec') return verify(used.hash, signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
  if (used.key === 'ed25519') return verify(null, signed, key, signature);
  return verify(
    used.hash,
    signed,
    { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
    signature,
  );
}

/** Sig_structure (RFC 9052 section 4.4): the bytes that a COSE_Sign1 signature covers. */
export function signatureStructure(protectedBytes: Uint8Array, externalData: Uint8Array, payload: Uint8Array): Buffer {
  return encodeCbor(['Signature1', protectedBytes, externalData, payload]);
}
