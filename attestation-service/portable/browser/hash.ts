import { hmac } from '@noble/hashes/hmac.js';
import { sha1 } from '@noble/hashes/legacy.js';
import { sha224, sha256, sha384, sha512 } from '@noble/hashes/sha2.js';
import { SealpodError } from '@sealpod/protocol/errors';

const functions = { sha1, sha224, sha256, sha384, sha512 };
type HashFunction = (typeof functions)[keyof typeof functions];

/** The hash function of a name as node:crypto takes it (`sha256`, `SHA-256`). @throws SealpodError UNSUPPORTED */
export function hashFunction(name: string): HashFunction {
  const plain = name.toLowerCase().replace(/^(rsa-)?sha-?/, 'sha');
  if (!Object.hasOwn(functions, plain))
    throw new SealpodError('UNSUPPORTED', 'no such hash function outside Node', { actual: name });
  return functions[plain as keyof typeof functions];
}

interface Running {
  update(data: Uint8Array): unknown;
  digest(): Uint8Array;
}

/** The part of node:crypto's `Hash` and `Hmac` that verifiers use. */
class Digest {
  readonly #running: Running;

  constructor(running: Running) {
    this.#running = running;
  }

  update(data: Uint8Array | string, encoding?: BufferEncoding): this {
    this.#running.update(typeof data === 'string' ? Buffer.from(data, encoding) : data);
    return this;
  }

  digest(): Buffer;
  digest(encoding: BufferEncoding): string;
  digest(encoding?: BufferEncoding): Buffer | string {
    const value = Buffer.from(this.#running.digest());
    return encoding === undefined ? value : value.toString(encoding);
  }
}

export function createHash(name: string): Digest {
  return new Digest(hashFunction(name).create());
}

/** One call, as `hash` of node:crypto. */
export function hash(name: string, data: Uint8Array | string, encoding: BufferEncoding = 'hex'): string {
  return createHash(name).update(data).digest(encoding);
}

export function createHmac(name: string, key: Uint8Array | string): Digest {
  return new Digest(hmac.create(hashFunction(name), typeof key === 'string' ? Buffer.from(key) : key));
}

/** Compares without telling by its time where two byte strings differ. @throws RangeError for different lengths, as Node */
export function timingSafeEqual(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) throw new RangeError('Input buffers must have the same byte length');
  let difference = 0;
  for (const [index, byte] of left.entries()) difference |= byte ^ (right[index] ?? 0);
  return difference === 0;
}
