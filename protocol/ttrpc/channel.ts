import type { Duplex } from 'node:stream';
import { encodeHeader, type Frame, FrameDecoder, type FrameHeader } from './frame.ts';

export interface ChannelEvents {
  /** One frame, in order. */
  frame(frame: Frame): void;
  /** The peer sends no more; it may still read. */
  end(): void;
  /** The stream is gone, with what broke it where something did. Called once, last. */
  close(error: Error | undefined): void;
}

/** Frames over one byte stream, either side. */
export class FrameChannel {
  readonly #stream: Duplex;
  readonly #events: ChannelEvents;
  readonly #decoder = new FrameDecoder();
  #pauses = 0;
  #closed = false;
  #error: Error | undefined;

  constructor(stream: Duplex, events: ChannelEvents) {
    this.#stream = stream;
    this.#events = events;
    stream.on('data', (chunk: Buffer) => {
      for (const frame of this.#decoder.push(chunk)) if (!this.#closed) events.frame(frame);
    });
    stream.on('end', () => {
      if (!this.#closed) events.end();
    });
    stream.on('error', (error) => {
      this.#error ??= error;
      stream.destroy();
    });
    stream.once('close', () => this.#close());
    if (stream.destroyed) queueMicrotask(() => this.#close());
  }

  /** Sends one frame; nothing happens on a closed channel, whose calls fail by its `close` event. */
  send(header: FrameHeader, payload: Uint8Array): void {
    if (this.#closed || !this.#stream.writable) return;
    // One system call for both where the stream can write vectors.
    this.#stream.cork();
    this.#stream.write(encodeHeader(header, payload.length));
    if (payload.length > 0) this.#stream.write(payload);
    this.#stream.uncork();
  }

  /** Whether the peer reads slower than this side writes. */
  get congested(): boolean {
    return this.#stream.writableNeedDrain;
  }

  /** Resolves once the peer has read enough for more to be sent, or the channel is closed. */
  async drained(): Promise<void> {
    if (!this.congested || this.#closed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#stream.once('drain', resolve);
    this.#stream.once('close', resolve);
    await promise;
    this.#stream.off('drain', resolve);
    this.#stream.off('close', resolve);
  }

  /** Stops reading until as many `resume` have come as `pause`. */
  pause(): void {
    if (this.#pauses++ === 0) this.#stream.pause();
  }

  resume(): void {
    if (--this.#pauses === 0) this.#stream.resume();
  }

  /** Sends what is waiting, then closes. */
  finish(): void {
    this.#stream.end();
    // The other direction too: nobody reads it any more.
    if (this.#stream.writableFinished) this.#stream.destroy();
    else this.#stream.once('finish', () => this.#stream.destroy());
  }

  /** Closes at once. */
  destroy(): void {
    this.#stream.destroy();
    this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#events.close(this.#error);
  }
}
