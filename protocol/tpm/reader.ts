import { SealpodError } from '../errors.ts';
import type { ReasonCode } from '../reason-codes.ts';

/**
 * Reads TPM 2.0 structures: big-endian integers and sized buffers (Part 2 §4). Every read is checked against the end
 * of the buffer; returned buffers share its memory.
 */
export class TpmReader {
  readonly #bytes: Buffer;
  readonly #what: string;
  readonly #code: ReasonCode;
  #at = 0;

  /** `code` and `what` name the failure, `EV_FORMAT` by default. */
  constructor(bytes: Uint8Array, what = 'TPM structure', code: ReasonCode = 'EV_FORMAT') {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
    this.#code = code;
  }

  uint8(): number {
    return this.#bytes.readUInt8(this.#advance(1));
  }

  uint16(): number {
    return this.#bytes.readUInt16BE(this.#advance(2));
  }

  uint32(): number {
    return this.#bytes.readUInt32BE(this.#advance(4));
  }

  uint64(): bigint {
    return this.#bytes.readBigUInt64BE(this.#advance(8));
  }

  /** `length` bytes as they are. */
  bytes(length: number): Buffer {
    const from = this.#advance(length);
    return this.#bytes.subarray(from, from + length);
  }

  /** A TPM2B: 16-bit size, then so many bytes. */
  sized(): Buffer {
    return this.bytes(this.uint16());
  }

  /** All that is left. */
  rest(): Buffer {
    return this.bytes(this.remaining);
  }

  /** Number of bytes not read yet. */
  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  /** Throws where bytes are left over. */
  end(): void {
    if (this.remaining !== 0) throw this.fail(`${this.remaining} bytes too many`);
  }

  /** The error of this structure, for the caller to throw. */
  fail(reason: string): SealpodError {
    return new SealpodError(this.#code, `malformed ${this.#what}: ${reason}`);
  }

  #advance(length: number): number {
    const from = this.#at;
    if (length > this.remaining) throw this.fail(`cut short at byte ${this.#bytes.length}`);
    this.#at += length;
    return from;
  }
}
