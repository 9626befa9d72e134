import { hash } from 'node:crypto';

/**
 * A function of bytes that remembers what it made of the last different ones, by their SHA-256: for what depends on nothing
 * else, such as parsing a certificate. What throws is not remembered.
 *
 * @param kept how many
 */
export function remembered<Result>(kept: number, make: (bytes: Uint8Array) => Result): (bytes: Uint8Array) => Result {
  const known = new Map<string, Result>();
  return (bytes) => {
    const digest = hash('sha256', bytes, 'base64');
    const found = known.get(digest);
    if (found !== undefined) return found;
    const made = make(bytes);
    const [eldest] = known.keys();
    if (known.size >= kept && eldest !== undefined) known.delete(eldest);
    known.set(digest, made);
    return made;
  };
}
