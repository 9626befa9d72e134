import { SealpodError } from '../errors.ts';

/** Reads Intel's structures: little-endian, every read checked against the end. Returned buffers share the memory. */
export class QuoteReader {
  readonly #bytes: Buffer;
  readonly #what: string;
  #at = 0;

  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  get position(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  uint16(): number {
    return this.#bytes.readUInt16LE(this.#advance(2));
  }

  uint32(): number {
    return this.#bytes.readUInt32LE(this.#advance(4));
  }

  bytes(length: number): Buffer {
    const from = this.#advance(length);
    return this.#bytes.subarray(from, from + length);
  }

  /** Throws where bytes are left over. */
  end(): void {
    if (this.remaining !== 0) throw this.fail(`${this.remaining} bytes too many`);
  }

  fail(reason: string): SealpodError {
    return new SealpodError('EV_FORMAT', `malformed ${this.#what}: ${reason}`);
  }

  #advance(length: number): number {
    const from = this.#at;
    if (length > this.remaining) throw this.fail(`cut short at byte ${this.#bytes.length}`);
    this.#at += length;
    return from;
  }
}
