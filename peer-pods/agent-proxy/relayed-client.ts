import type { Duplex } from 'node:stream';
import {
  encodeErrorResponse,
  Flag,
  type Frame,
  FrameChannel,
  MessageType,
  type RelayedCall,
  requestTimeoutMs,
  Status,
  TtrpcError,
  tooLong,
  toTtrpcError,
  withTimeout,
} from '@sealpod/protocol/ttrpc';
import type { GuestChannel } from './guest-channel.ts';

/** Requests that one client may have open at a time; far more than a pod needs. */
const maxOpenCalls = 4096;
/** How long answers may still go out after the client ended its side, before it is taken to be gone. */
const halfCloseGraceMs = 1000;
/** The longest delay a timer of Node takes; a call with a longer limit is limited by its two ends alone. */
const longestTimerMs = 2 ** 31 - 1;

interface OpenCall {
  /** Absent while the guest is not connected. */
  guestCall: RelayedCall | undefined;
  /** Frames of the client's stream that came meanwhile. */
  waiting: Frame[];
  timer: NodeJS.Timeout | undefined;
  readonly abandoned: AbortController;
}

/**
 * One client of the relay. Its frames go to the guest under stream ids of the guest's connection and are otherwise
 * untouched: services, methods, metadata and streams that nobody here knows pass all the same. Only limits are read.
 */
export class RelayedClient {
  /** Resolves when the client is gone. Never rejects. */
  readonly closed: Promise<void>;
  readonly #guest: GuestChannel;
  readonly #channel: FrameChannel;
  readonly #calls = new Map<number, OpenCall>();
  #ended = false;
  #graceTimer: NodeJS.Timeout | undefined;
  #held = false;

  constructor(stream: Duplex, guest: GuestChannel) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#guest = guest;
    this.#channel = new FrameChannel(stream, {
      frame: (frame) => this.#fromClient(frame),
      end: () => this.#clientEnded(),
      close: () => {
        clearTimeout(this.#graceTimer);
        for (const streamId of [...this.#calls.keys()]) this.#end(streamId);
        resolve();
      },
    });
  }

  destroy(): void {
    this.#channel.destroy();
  }

  #fromClient(frame: Frame): void {
    try {
      if (frame.type === MessageType.request) this.#begin(frame);
      else if (frame.type === MessageType.data) this.#continue(frame);
      // Frames of other types are ignored, as by the guest.
    } catch (error) {
      this.#fail(frame.streamId, error);
    }
  }

  #begin({ streamId, flags, length, payload }: Frame): void {
    if (!payload) throw tooLong(length, Status.invalidArgument);
    if (streamId % 2 !== 1) throw new TtrpcError(Status.invalidArgument, 'stream id must be odd');
    if (this.#calls.has(streamId)) throw new TtrpcError(Status.invalidArgument, 'stream id is in use');
    if (this.#calls.size >= maxOpenCalls) throw new TtrpcError(Status.resourceExhausted, 'too many open calls');
    const timeoutMs = requestTimeoutMs(payload);
    const call: OpenCall = { guestCall: undefined, waiting: [], timer: undefined, abandoned: new AbortController() };
    this.#calls.set(streamId, call);
    if (timeoutMs !== undefined && timeoutMs <= longestTimerMs) {
      // The guest keeps the limit itself; this is for one that does not, or is out of reach.
      const expire = () => this.#fail(streamId, new TtrpcError(Status.deadlineExceeded, 'timeout'));
      call.timer = setTimeout(expire, timeoutMs);
    }
    if (this.#guest.connected) this.#pass(streamId, call, flags, payload);
    else void this.#passLater(streamId, call, flags, payload, timeoutMs);
  }

  async #passLater(streamId: number, call: OpenCall, flags: number, payload: Uint8Array, timeoutMs = 0): Promise<void> {
    const begun = performance.now();
    try {
      await this.#guest.connect({ signal: call.abandoned.signal });
      if (this.#calls.get(streamId) !== call) return;
      const left = timeoutMs - (performance.now() - begun);
      if (timeoutMs > 0 && left <= 0) throw new TtrpcError(Status.deadlineExceeded, 'timeout');
      this.#pass(streamId, call, flags, timeoutMs > 0 ? withTimeout(payload, left) : payload);
    } catch (error) {
      if (this.#calls.get(streamId) === call) this.#fail(streamId, error);
    }
  }

  #pass(streamId: number, call: OpenCall, flags: number, payload: Uint8Array): void {
    call.guestCall = this.#guest.relay({
      flags,
      payload,
      frame: (frame) => this.#fromGuest(streamId, frame),
      fail: (error) => this.#fail(streamId, error),
    });
    for (const { type, flags: frameFlags, payload: data } of call.waiting)
      call.guestCall.send(type, frameFlags, data ?? new Uint8Array());
    call.waiting = [];
    this.#holdWhile(this.#guest.congestion());
  }

  #continue(frame: Frame): void {
    const call = this.#calls.get(frame.streamId);
    if (!call) throw new TtrpcError(Status.invalidArgument, 'Stream is no longer active');
    if (!frame.payload) throw tooLong(frame.length, Status.invalidArgument);
    if (call.guestCall) call.guestCall.send(frame.type, frame.flags, frame.payload);
    else if (call.waiting.length < maxOpenCalls) call.waiting.push(frame);
    else throw new TtrpcError(Status.resourceExhausted, 'too many messages for a guest that is out of reach');
    this.#holdWhile(this.#guest.congestion());
  }

  #fromGuest(streamId: number, { type, flags, length, payload }: Frame): void {
    if (!payload) {
      this.#fail(streamId, tooLong(length, Status.resourceExhausted));
      return;
    }
    if (type === MessageType.response || (flags & Flag.remoteClosed) !== 0) this.#end(streamId);
    this.#send(streamId, type, flags, payload);
  }

  #fail(streamId: number, error: unknown): void {
    this.#end(streamId);
    this.#send(streamId, MessageType.response, 0, encodeErrorResponse(toTtrpcError(error)));
  }

  #end(streamId: number): void {
    const call = this.#calls.get(streamId);
    if (!call) return;
    this.#calls.delete(streamId);
    clearTimeout(call.timer);
    call.guestCall?.end();
    call.abandoned.abort();
  }

  #send(streamId: number, type: number, flags: number, payload: Uint8Array): void {
    this.#channel.send({ streamId, type, flags }, payload);
    // A client that does not read its answers may not ask for more.
    if (this.#channel.congested) this.#holdWhile(this.#channel.drained());
    if (this.#ended && this.#calls.size === 0) this.#channel.finish();
  }

  /** Reads nothing more from this client until then; others go on. */
  #holdWhile(until: Promise<void> | undefined): void {
    if (until === undefined || this.#held) return;
    this.#held = true;
    this.#channel.pause();
    void until.then(() => {
      this.#held = false;
      this.#channel.resume();
    });
  }

  #clientEnded(): void {
    this.#ended = true;
    if (this.#calls.size === 0) this.#channel.finish();
    else this.#graceTimer = setTimeout(() => this.#channel.destroy(), halfCloseGraceMs);
  }
}
