import type { Readable } from 'node:stream';
import { outOfRange } from './failures.ts';

/** Bytes kept for a reader that does not come; beyond it the writer is held back, as by any pipe. */
const highWaterBytes = 256 * 1024;

/** Most bytes of one answer: well below the 4 MiB of a ttrpc message. */
const maxReadBytes = 1024 * 1024;

/** What can be held back. */
export interface Throttle {
  pause(): unknown;
  resume(): unknown;
}

/**
 * What a process wrote to one stream and nobody has read yet. Reads wait for data; after the end they are empty. Bounded:
 * the source is paused while too much is unread.
 */
export class OutputBuffer {
  #chunks: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #discarding = false;
  #waiting: (() => void)[] = [];
  #source: Throttle | undefined;
  /** How much was read, and what the last read got: its reader may have lost it on the way. */
  #position = 0;
  #last: Uint8Array = Buffer.alloc(0);

  /** Takes what `source` emits until it ends. An error of the source is its end: the process is gone. */
  attach(source: Readable): void {
    this.#source = source;
    source.on('data', (chunk: Buffer) => this.push(chunk));
    for (const event of ['end', 'close', 'error']) source.on(event, () => this.end());
  }

  /** Holds `source` back with the buffer; its data come through `push`. */
  throttle(source: Throttle): void {
    this.#source = source;
  }

  push(chunk: Buffer): void {
    if (this.#ended || this.#discarding || chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes >= highWaterBytes) this.#source?.pause();
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Throws away what is there and what comes: the process must not wait for a reader that may not read. */
  discard(): void {
    this.#discarding = true;
    this.#chunks = [];
    this.#bytes = 0;
    this.#source?.resume();
  }

  /**
   * Up to `length` bytes as soon as there are any; empty at the end. With `offset`, the number of bytes that the reader
   * has, the last answer is repeated to one who did not get it. Rejects when `signal` aborts.
   *
   * @throws TtrpcError OUT_OF_RANGE for bytes that were read before that
   */
  async read(length: number, signal: AbortSignal, offset?: number): Promise<Uint8Array> {
    for (;;) {
      // Each time: another read of the same reader, on a connection that is lost, may get the data first.
      if (offset !== undefined && offset !== this.#position) return this.#again(offset);
      if (this.#bytes > 0 || this.#ended) break;
      await this.#data(signal);
    }
    const wanted = Math.min(Math.max(length, 1), maxReadBytes);
    const taken: Buffer[] = [];
    let room = wanted;
    while (room > 0) {
      const [first] = this.#chunks;
      if (first === undefined) break;
      const part = first.subarray(0, room);
      taken.push(part);
      room -= part.length;
      if (part.length === first.length) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(part.length);
    }
    const data = Buffer.concat(taken);
    this.#bytes -= data.length;
    if (data.length > 0) {
      this.#position += data.length;
      this.#last = data;
    }
    if (this.#bytes < highWaterBytes) this.#source?.resume();
    return data;
  }

  #again(offset: number): Uint8Array {
    const first = this.#position - this.#last.length;
    if (offset >= first && offset < this.#position) return this.#last.subarray(offset - first);
    throw outOfRange(`the output can be read again from byte ${first} on, not from ${offset}`);
  }

  #data(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#waiting = this.#waiting.filter((waiting) => waiting !== wake);
        reject(signal.reason);
      };
      const wake = () => {
        signal.removeEventListener('abort', abort);
        resolve();
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.push(wake);
    });
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
