import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { FrameChannel } from './channel.ts';
import { decodeResponse, encodeRequest, tooLong } from './envelope.ts';
import { Flag, type Frame, MessageType, maxMessageBytes } from './frame.ts';
import { MessageQueue } from './message-queue.ts';
import { closedError, Status, TtrpcError, toTtrpcError } from './status.ts';

export interface CallOptions {
  /** Milliseconds until the call fails with `deadlineExceeded`; the server is told. Absent or 0: no limit. */
  timeoutMs?: number | undefined;
  /** Gives the call up with `cancelled`. ttrpc cannot tell the server, which goes on until its own deadline. */
  signal?: AbortSignal | undefined;
  metadata?: Record<string, string[]> | undefined;
}

/** Which sides of a call are streams. */
export interface StreamShape {
  readonly clientStreaming: boolean;
  readonly serverStreaming: boolean;
}

/** A call with a stream on at least one side, in bytes. */
export interface RawStream {
  /** Sends one message; resolves when the connection takes more. */
  send(message: Uint8Array): Promise<void>;
  /** Half-close: no more messages from this side. */
  closeSend(): void;
  /** Gives the call up: who reads `messages` gets the reason. After the call's end it does nothing. */
  abort(reason: unknown): void;
  /** What the server sends; without a streaming server it is the one response. Throws the call's failure. */
  readonly messages: AsyncIterable<Uint8Array>;
}

interface Pending {
  frame(frame: Frame): void;
  fail(error: TtrpcError): void;
}

/** A request that a relay passes on: its envelope stays as it was received. */
export interface RelayedRequest extends Pending {
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** A call that was passed on, under a stream id of this connection. */
export interface RelayedCall {
  /** Passes on a frame of the client's stream. */
  send(type: number, flags: number, payload: Uint8Array): void;
  /** Nobody waits for answers any more. */
  end(): void;
}

// The longest delay a timer of Node takes; a call with a longer limit is limited by the server alone.
const longestTimerMs = 2 ** 31 - 1;

/** The client side of one byte stream that carries ttrpc: any number of calls at the same time. */
export class TtrpcConnection {
  /** Resolves when the connection is gone, by `close` or by the peer. Never rejects. */
  readonly closed: Promise<void>;
  readonly #channel: FrameChannel;
  readonly #pending = new Map<number, Pending>();
  #nextStreamId = 1;
  #gone: TtrpcError | undefined;

  constructor(stream: Duplex) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#channel = new FrameChannel(stream, {
      frame: (frame) => this.#pending.get(frame.streamId)?.frame(frame),
      // Nothing is answered after the peer's end.
      end: () => this.#channel.destroy(),
      close: (error) => {
        this.#gone ??= closedError(error);
        for (const pending of [...this.#pending.values()]) pending.fail(this.#gone);
        resolve();
      },
    });
  }

  /** Connects to a unix socket. Throws `unavailable`, with the system's error as cause. */
  static async connect(socketPath: string, options: { timeoutMs?: number } = {}): Promise<TtrpcConnection> {
    const socket = connect({ path: socketPath });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = options.timeoutMs
      ? setTimeout(() => reject(new Error(`no connection within ${options.timeoutMs} ms`)), options.timeoutMs)
      : undefined;
    socket.once('connect', resolve);
    socket.once('error', reject);
    try {
      await promise;
      return new TtrpcConnection(socket);
    } catch (cause) {
      socket.destroy();
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new TtrpcError(Status.unavailable, `cannot connect to ${socketPath}: ${reason}`, { cause });
    } finally {
      clearTimeout(timer);
      socket.off('connect', resolve);
      socket.off('error', reject);
    }
  }

  /** One request, one response, in bytes. Throws TtrpcError: the server's, or a local one (closed, deadline, cancelled, size). */
  call(service: string, method: string, payload: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    try {
      const begun = this.#begin(service, method, payload, 0, options, {
        frame: (frame) => {
          begun.end();
          try {
            resolve(responsePayload(frame));
          } catch (error) {
            reject(error);
          }
        },
        fail: reject,
      });
    } catch (error) {
      reject(error);
    }
    return promise;
  }

  /** Begins a call with a stream; `payload` is the request of a call whose client side is no stream. */
  openStream(
    service: string,
    method: string,
    shape: StreamShape,
    payload = new Uint8Array(),
    options: CallOptions = {},
  ): RawStream {
    const queue = new MessageQueue({ pause: () => this.#channel.pause(), resume: () => this.#channel.resume() });
    const flags = shape.clientStreaming ? Flag.remoteOpen : Flag.remoteClosed;
    let open = shape.clientStreaming;
    let failure: TtrpcError | undefined;
    const finish = (error?: TtrpcError) => {
      open = false;
      failure = error;
      begun.end();
      queue.finish(error);
    };
    const begun = this.#begin(service, method, payload, flags, options, {
      frame: (frame) => {
        try {
          if (takeStreamFrame(frame, shape, queue)) finish();
        } catch (error) {
          finish(error as TtrpcError);
        }
      },
      fail: (error) => finish(error),
    });
    const channel = this.#channel;
    return {
      messages: queue,
      abort: (reason) => finish(toTtrpcError(reason)),
      async send(message) {
        if (!open) throw failure ?? new TtrpcError(Status.failedPrecondition, 'the stream is closed for sending');
        if (message.length > maxMessageBytes) throw tooLong(message.length, Status.resourceExhausted);
        channel.send({ streamId: begun.streamId, type: MessageType.data, flags: 0 }, message);
        await channel.drained();
      },
      closeSend() {
        if (!open) return;
        open = false;
        const flags = Flag.remoteClosed | Flag.noData;
        channel.send({ streamId: begun.streamId, type: MessageType.data, flags }, new Uint8Array());
      },
    };
  }

  /**
   * Passes a request on. Its deadline and the end of the call are the relay's own affair: it hears every frame until it
   * calls `end`, or of the loss of the connection. Throws where the connection is gone.
   */
  relay({ flags, payload, frame, fail }: RelayedRequest): RelayedCall {
    if (this.#gone) throw this.#gone;
    const streamId = this.#takeStreamId();
    const end = () => {
      this.#pending.delete(streamId);
    };
    this.#pending.set(streamId, {
      frame,
      fail: (error) => {
        end();
        fail(error);
      },
    });
    this.#channel.send({ streamId, type: MessageType.request, flags }, payload);
    return { send: (type, frameFlags, data) => this.#channel.send({ streamId, type, flags: frameFlags }, data), end };
  }

  /** Whether the server reads slower than this side writes. */
  get congested(): boolean {
    return this.#channel.congested;
  }

  /** Resolves once more can be sent, or the connection is gone. */
  drained(): Promise<void> {
    return this.#channel.drained();
  }

  /** Closes at once; calls that wait fail with `unavailable`. */
  close(): void {
    this.#gone ??= closedError();
    this.#channel.destroy();
  }

  #begin(
    service: string,
    method: string,
    payload: Uint8Array,
    flags: number,
    { timeoutMs, signal, metadata = {} }: CallOptions,
    pending: Pending,
  ): { streamId: number; end: () => void } {
    if (this.#gone) throw this.#gone;
    if (signal?.aborted) throw new TtrpcError(Status.cancelled, 'cancelled', { cause: signal.reason });
    const limited = timeoutMs !== undefined && timeoutMs > 0;
    const request = encodeRequest({ service, method, payload, metadata, timeoutMs: limited ? timeoutMs : undefined });
    const streamId = this.#takeStreamId();

    const end = () => {
      this.#pending.delete(streamId);
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
    const fail = (error: TtrpcError) => {
      end();
      pending.fail(error);
    };
    const onAbort = () => fail(new TtrpcError(Status.cancelled, 'cancelled', { cause: signal?.reason }));
    const timer =
      limited && timeoutMs <= longestTimerMs
        ? setTimeout(() => fail(new TtrpcError(Status.deadlineExceeded, 'timeout')), timeoutMs)
        : undefined;
    signal?.addEventListener('abort', onAbort);
    this.#pending.set(streamId, { frame: pending.frame, fail });
    this.#channel.send({ streamId, type: MessageType.request, flags }, request);
    return { streamId, end };
  }

  #takeStreamId(): number {
    const streamId = this.#nextStreamId;
    if (streamId > 0xffffffff) throw new TtrpcError(Status.unavailable, 'the stream ids of the connection are used up');
    this.#nextStreamId += 2;
    return streamId;
  }
}

function responsePayload(frame: Frame): Uint8Array {
  if (!frame.payload) throw tooLong(frame.length, Status.resourceExhausted);
  if (frame.type === MessageType.response) return decodeResponse(frame.payload);
  throw new TtrpcError(Status.internal, `a frame of type ${frame.type} answers a unary call`);
}

/** Takes one frame of a streaming call. Returns whether it was the last; throws the call's failure. */
function takeStreamFrame(frame: Frame, shape: StreamShape, queue: MessageQueue): boolean {
  if (!frame.payload) throw tooLong(frame.length, Status.resourceExhausted);
  if (frame.type === MessageType.response) {
    const payload = decodeResponse(frame.payload);
    // A streaming server may end with a plain response, whose payload, if any, is a last message.
    if (!shape.serverStreaming || payload.length > 0) queue.push(payload);
    return true;
  }
  if (frame.type !== MessageType.data || !shape.serverStreaming) {
    throw new TtrpcError(Status.internal, `a frame of type ${frame.type} does not belong to this call`);
  }
  if ((frame.flags & Flag.noData) === 0) queue.push(frame.payload);
  return (frame.flags & Flag.remoteClosed) !== 0;
}
