import { constants, type KeyObject, verify } from 'node:crypto';
import { Algorithm, hashName } from './constants.ts';
import { TpmReader } from './reader.ts';
import { sized, uint16 } from './writer.ts';

/** TPMT_SIGNATURE (Part 2 §11.3.4): the three schemes an attestation key may have. */
export type Signature =
  | { readonly scheme: 'ecdsa'; readonly hash: number; readonly r: Buffer; readonly s: Buffer }
  | { readonly scheme: 'rsassa' | 'rsapss'; readonly hash: number; readonly signature: Buffer };

/** @throws SealpodError EV_FORMAT, also for any other scheme */
export function parseSignature(bytes: Uint8Array): Signature {
  const reader = new TpmReader(bytes, 'TPMT_SIGNATURE');
  const algorithm = reader.uint16();
  const hash = reader.uint16();
  let signature: Signature;
  if (algorithm === Algorithm.ecDsa) signature = { scheme: 'ecdsa', hash, r: reader.sized(), s: reader.sized() };
  else if (algorithm === Algorithm.rsaSsa) signature = { scheme: 'rsassa', hash, signature: reader.sized() };
  else if (algorithm === Algorithm.rsaPss) signature = { scheme: 'rsapss', hash, signature: reader.sized() };
  else throw reader.fail(`signature scheme 0x${algorithm.toString(16)}`);
  reader.end();
  return signature;
}

/** Writes a TPMT_SIGNATURE. */
export function encodeSignature(signature: Signature): Buffer {
  if (signature.scheme === 'ecdsa') {
    return Buffer.concat([uint16(Algorithm.ecDsa), uint16(signature.hash), sized(signature.r), sized(signature.s)]);
  }
  const algorithm = signature.scheme === 'rsassa' ? Algorithm.rsaSsa : Algorithm.rsaPss;
  return Buffer.concat([uint16(algorithm), uint16(signature.hash), sized(signature.signature)]);
}

/**
 * Whether `key` made `signature` over `message`, with SHA-256 or stronger. False, never an exception, for a scheme that
 * does not fit the key and for weak or unknown hashes.
 */
export function verifySignature(key: KeyObject, signature: Signature, message: Uint8Array): boolean {
  const hash = hashName(signature.hash);
  if (hash === undefined || hash === 'sha1') return false;
  if (signature.scheme === 'ecdsa') {
    const size = { prime256v1: 32, secp384r1: 48, secp521r1: 66 }[key.asymmetricKeyDetails?.namedCurve ?? ''];
    if (key.asymmetricKeyType !== 'ec' || size === undefined) return false;
    if (signature.r.length > size || signature.s.length > size) return false;
    const pad = (half: Buffer): Buffer => Buffer.concat([Buffer.alloc(size - half.length), half]);
    return verify(
      hash,
      message,
      { key, dsaEncoding: 'ieee-p1363' },
      Buffer.concat([pad(signature.r), pad(signature.s)]),
    );
  }
  if (key.asymmetricKeyType !== 'rsa') return false;
  const padding = signature.scheme === 'rsassa' ? constants.RSA_PKCS1_PADDING : constants.RSA_PKCS1_PSS_PADDING;
  return verify(hash, message, { key, padding, saltLength: constants.RSA_PSS_SALTLEN_AUTO }, signature.signature);
}
