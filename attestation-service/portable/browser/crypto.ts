/**
 * What takes the place of `node:crypto` in the browser's bundle: hashes, verification of signatures and reading of
 * certificates, all synchronous as on Node. Everything else throws UNSUPPORTED when called.
 *
 * @module
 */
import { unsupported } from './unsupported.ts';

export { createHash, createHmac, hash, timingSafeEqual } from './hash.ts';
export { constants, createPublicKey, KeyObject, verify } from './public-key.ts';
export { X509Certificate } from './x509.ts';

/** @returns bytes of the platform's generator for secrets */
export function randomBytes(size: number): Buffer {
  return Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(size)));
}

export const createCipheriv = unsupported('createCipheriv');
export const createDecipheriv = unsupported('createDecipheriv');
export const createPrivateKey = unsupported('createPrivateKey');
export const createECDH = unsupported('createECDH');
export const diffieHellman = unsupported('diffieHellman');
export const generateKeyPair = unsupported('generateKeyPair');
export const generateKeyPairSync = unsupported('generateKeyPairSync');
export const hkdfSync = unsupported('hkdfSync');
export const privateDecrypt = unsupported('privateDecrypt');
export const publicEncrypt = unsupported('publicEncrypt');
export const sign = unsupported('sign');
