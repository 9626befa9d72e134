const highWaterMark = 64;

/** What the two ends of a queue tell their connection: to stop reading, and to go on. */
export interface Backpressure {
  pause(): void;
  resume(): void;
}

/**
 * The messages of one stream that have arrived and not been read. ttrpc has no window of its own, so a reader that
 * falls behind stops the whole connection, as in the Go implementation.
 */
export class MessageQueue implements AsyncIterable<Uint8Array> {
  readonly #backpressure: Backpressure;
  readonly #messages: Uint8Array[] = [];
  #wake: (() => void) | undefined;
  #finished = false;
  #failure: Error | undefined;
  #paused = false;

  constructor(backpressure: Backpressure) {
    this.#backpressure = backpressure;
  }

  push(message: Uint8Array): void {
    if (this.#finished) return;
    this.#messages.push(message);
    if (!this.#paused && this.#messages.length >= highWaterMark) {
      this.#paused = true;
      this.#backpressure.pause();
    }
    this.#wake?.();
  }

  /** No more messages come; those that wait can still be read, and then `failure` is thrown, if there is one. */
  finish(failure?: Error): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#failure = failure;
    this.#wake?.();
  }

  /** Nobody reads any more: drops what waits. */
  abandon(): void {
    this.finish();
    this.#failure = undefined;
    this.#messages.length = 0;
    this.#relieve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        const message = this.#messages.shift();
        if (message) {
          if (this.#messages.length < highWaterMark / 2) this.#relieve();
          yield message;
        } else if (this.#failure) throw this.#failure;
        else if (this.#finished) return;
        else {
          const { promise, resolve } = Promise.withResolvers<void>();
          this.#wake = resolve;
          await promise;
          this.#wake = undefined;
        }
      }
    } finally {
      this.abandon();
    }
  }

  #relieve(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#backpressure.resume();
  }
}
