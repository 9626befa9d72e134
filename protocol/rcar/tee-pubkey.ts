import { createPublicKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { SealpodError } from '../errors.ts';
import { asJsonObject, type JsonValue, stringMember } from '../json/index.ts';

/**
 * The key a guest wants responses encrypted to: a JWK of exactly these members. Unknown members of a received JWK are
 * dropped, because the runtime-data digest is computed over the typed key (kbs-types `TeePubKey`).
 *
 * Not verified by parsing: that `crv` and `alg` are supported and that the point or modulus is valid. Upstream attests
 * with such a key and fails when a response must be encrypted, and so do we ({@link teeKeyObject}).
 */
export type TeePubKey =
  | { readonly kty: 'EC'; readonly crv: string; readonly alg: string; readonly x: string; readonly y: string }
  | { readonly kty: 'RSA'; readonly alg: string; readonly n: string; readonly e: string }
  | { readonly kty: 'AKP'; readonly alg: string; readonly pub: string };

/** Keys we make ourselves. */
export type TeeKeyAlgorithm = 'EC-P256' | 'EC-P521' | 'RSA-OAEP-256';

/** Reads a `tee-pubkey` member. @throws SealpodError REQUEST_FORMAT */
export function parseTeePubKey(value: JsonValue | undefined): TeePubKey {
  const jwk = asJsonObject(value, 'tee-pubkey');
  const kty = stringMember(jwk, 'kty');
  const text = (name: string): string => {
    const member = stringMember(jwk, name);
    if (member.length > maxMemberLength) throw new SealpodError('REQUEST_FORMAT', `tee-pubkey ${name} is too long`);
    return member;
  };
  switch (kty) {
    case 'EC':
      return { kty, crv: text('crv'), alg: text('alg'), x: text('x'), y: text('y') };
    case 'RSA':
      return { kty, alg: text('alg'), n: text('n'), e: text('e') };
    case 'AKP':
      return { kty, alg: text('alg'), pub: text('pub') };
    default:
      throw new SealpodError('REQUEST_FORMAT', 'tee-pubkey is of an unknown type', {
        expected: 'EC, RSA or AKP',
        actual: kty,
      });
  }
}

/** Room for an RSA-8192 modulus and an ML-KEM-1024 key. */
const maxMemberLength = 2200;

/** Coordinate length in bytes of the curves that RCAR encrypts to. */
export const coordinateBytes: Readonly<Record<string, number>> = { 'P-256': 32, 'P-521': 66 };

/**
 * The usable public key behind a `tee-pubkey`, after the checks that parsing leaves out: supported algorithm, exact
 * coordinate length, point on the curve (OpenSSL checks at import), RSA modulus of 2048 to 8192 bits.
 * `RSA1_5` is refused: RSAES-PKCS1-v1_5 decryption is an oracle (RFC 8725 §3.2); `AKP` is not supported.
 *
 * @throws SealpodError REQUEST_FORMAT, UNSUPPORTED
 */
export function teeKeyObject(key: TeePubKey): KeyObject {
  if (key.kty === 'EC') {
    const size = coordinateBytes[key.crv];
    if (key.alg !== 'ECDH-ES+A256KW' || size === undefined) throw unsupported(`${key.kty} ${key.crv} ${key.alg}`);
    if ([key.x, key.y].some((text) => Buffer.from(text, 'base64url').length !== size)) {
      throw new SealpodError('REQUEST_FORMAT', 'tee-pubkey coordinates are of the wrong length', {
        expected: `${size} bytes`,
      });
    }
    return importKey({ kty: 'EC', crv: key.crv, x: key.x, y: key.y });
  }
  if (key.kty === 'RSA') {
    if (key.alg !== 'RSA-OAEP-256') throw unsupported(`${key.kty} ${key.alg}`);
    const imported = importKey({ kty: 'RSA', n: key.n, e: key.e });
    const bits = imported.asymmetricKeyDetails?.modulusLength ?? 0;
    if (bits < 2048 || bits > 8192) {
      throw new SealpodError('REQUEST_FORMAT', 'tee-pubkey modulus is of an unsupported size', {
        expected: '2048 to 8192 bits',
        actual: `${bits}`,
      });
    }
    return imported;
  }
  throw unsupported(key.alg);
}

function importKey(jwk: { kty: string; crv?: string; x?: string; y?: string; n?: string; e?: string }): KeyObject {
  try {
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', 'tee-pubkey is not a valid public key', { cause });
  }
}

function unsupported(actual: string): SealpodError {
  return new SealpodError('UNSUPPORTED', 'tee-pubkey is of an unsupported algorithm', {
    expected: 'EC P-256 or P-521 with ECDH-ES+A256KW, or RSA with RSA-OAEP-256',
    actual,
  });
}

/** The `tee-pubkey` of a public or private key. @throws SealpodError UNSUPPORTED */
export function teePubKeyOf(key: KeyObject): TeePubKey {
  const jwk = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' });
  if (jwk.kty === 'EC' && jwk.crv && jwk.x && jwk.y) {
    return { kty: 'EC', crv: jwk.crv, alg: 'ECDH-ES+A256KW', x: jwk.x, y: jwk.y };
  }
  if (jwk.kty === 'RSA' && jwk.n && jwk.e) return { kty: 'RSA', alg: 'RSA-OAEP-256', n: jwk.n, e: jwk.e };
  throw unsupported(`${jwk.kty}`);
}

/** Makes a key pair for one session; EC P-256 unless told otherwise, as upstream's client does. */
export async function generateTeeKey(
  algorithm: TeeKeyAlgorithm = 'EC-P256',
): Promise<{ privateKey: KeyObject; teePubKey: TeePubKey }> {
  const { privateKey, publicKey } =
    algorithm === 'RSA-OAEP-256'
      ? await promisify(generateKeyPair)('rsa', { modulusLength: 2048 })
      : await promisify(generateKeyPair)('ec', { namedCurve: algorithm === 'EC-P256' ? 'P-256' : 'P-521' });
  return { privateKey, teePubKey: teePubKeyOf(publicKey) };
}
