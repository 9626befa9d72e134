import { SealpodError } from '../errors.ts';

/** Reads the little-endian structures of SPDM; every read is checked against the end. Buffers share the memory. */
export class SpdmReader {
  readonly #bytes: Buffer;
  readonly #what: string;
  #at = 0;

  constructor(bytes: Buffer, what: string) {
    this.#bytes = bytes;
    this.#what = what;
  }

  /** Offset of the next byte. */
  get position(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  /** An unsigned integer of 1 to 3 bytes. */
  integer(length: 1 | 2 | 3): number {
    return this.bytes(length).readUIntLE(0, length);
  }

  bytes(length: number): Buffer {
    if (length > this.remaining)
      throw new SealpodError('EV_FORMAT', `malformed ${this.#what}`, {
        expected: `${length} bytes at ${this.#at}`,
        actual: `${this.remaining}`,
      });
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** Throws where bytes are left over. */
  end(): void {
    if (this.remaining !== 0)
      throw new SealpodError('EV_FORMAT', `malformed ${this.#what}`, {
        expected: 'its end',
        actual: `${this.remaining} bytes more`,
      });
  }
}
