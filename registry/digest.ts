import { createHash, type Hash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';

/** Algorithms of OCI image-spec, descriptor.md, that registries use. */
const digestPattern = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** Whether `text` is a digest of a supported algorithm. */
export function isDigest(text: string): boolean {
  return digestPattern.test(text);
}

/** A running hash of the digest's algorithm. @throws SealpodError IMG_FORMAT */
export function hashFor(digest: string): Hash {
  if (!isDigest(digest))
    throw new SealpodError('IMG_FORMAT', `unsupported digest ${JSON.stringify(digest.slice(0, 80))}`);
  return createHash(digest.slice(0, digest.indexOf(':')));
}

/** `sha256:<hex>` of `bytes`. */
export function sha256Digest(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Ends `hash` and compares. @throws SealpodError IMG_DIGEST */
export function requireDigest(hash: Hash, expected: string, what: string): void {
  const actual = `${expected.slice(0, expected.indexOf(':'))}:${hash.digest('hex')}`;
  if (actual !== expected)
    throw new SealpodError('IMG_DIGEST', `${what} does not have its digest`, { expected, actual });
}
