/**
 * A digest as a TEE's field of `length` bytes holds it: zero bytes after a shorter one, a longer one cut. Upstream's guests
 * fit report data and initdata digests so, for every TEE.
 */
export function fitted(digest: Uint8Array, length: number): Buffer {
  const field = Buffer.alloc(length);
  field.set(digest.subarray(0, length));
  return field;
}
