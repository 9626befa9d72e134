import { outOfRange } from './failures.ts';

/** Gives a process each byte of its input once, although a write may come again after its answer was lost. */
export class InputStream {
  readonly #write: (data: Uint8Array) => Promise<void>;
  #taken = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(write: (data: Uint8Array) => Promise<void>) {
    this.#write = write;
  }

  /**
   * Resolves when the process has taken the bytes. `offset`: how many bytes of the input came before these.
   *
   * @throws TtrpcError OUT_OF_RANGE where bytes before these are missing; what the write throws
   */
  async write(data: Uint8Array, offset = this.#taken): Promise<void> {
    if (offset > this.#taken) throw outOfRange(`the input is taken up to byte ${this.#taken}, not up to ${offset}`);
    const rest = data.subarray(Math.min(this.#taken - offset, data.length));
    if (rest.length > 0) {
      this.#taken += rest.length;
      this.#last = this.#write(rest);
    }
    await this.#last;
  }
}
