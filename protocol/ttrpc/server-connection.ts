import type { Duplex } from 'node:stream';
import { FrameChannel } from './channel.ts';
import { decodeRequest, encodeErrorResponse, encodeResponse, type RequestEnvelope, tooLong } from './envelope.ts';
import { Flag, type Frame, MessageType } from './frame.ts';
import { MessageQueue } from './message-queue.ts';
import type { BoundMethod } from './service.ts';
import { Status, TtrpcError, toTtrpcError } from './status.ts';

/** Requests that one connection may have open at a time; far more than a pod needs. */
const maxOpenCalls = 4096;

/** How long answers may still go out after the client ended its side, before it is taken to be gone. */
const halfCloseGraceMs = 1000;

const longestTimerMs = 2 ** 31 - 1;

/** Finds a method or throws the TtrpcError with which to answer. */
export type MethodLookup = (service: string, method: string) => BoundMethod;

interface OpenCall {
  readonly streamId: number;
  readonly controller: AbortController;
  readonly requests: MessageQueue | undefined;
}

/** The server side of one byte stream. */
export class ServerConnection {
  readonly closed: Promise<void>;
  readonly #channel: FrameChannel;
  readonly #lookup: MethodLookup;
  readonly #calls = new Set<OpenCall>();
  /** By stream id; the calls whose client streams. */
  readonly #streams = new Map<number, OpenCall>();
  #ended = false;
  #graceTimer: NodeJS.Timeout | undefined;
  #held = false;

  constructor(stream: Duplex, lookup: MethodLookup) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#lookup = lookup;
    this.#channel = new FrameChannel(stream, {
      frame: (frame) => this.#frame(frame),
      end: () => this.#peerEnded(),
      close: (error) => {
        clearTimeout(this.#graceTimer);
        for (const call of [...this.#calls]) {
          call.controller.abort(error ?? new TtrpcError(Status.cancelled, 'the client is gone'));
          call.requests?.finish(new TtrpcError(Status.cancelled, 'the client is gone'));
        }
        resolve();
      },
    });
  }

  destroy(): void {
    this.#channel.destroy();
  }

  #frame(frame: Frame): void {
    try {
      if (frame.type === MessageType.request) this.#request(frame);
      else if (frame.type === MessageType.data) this.#data(frame);
      // Frames of other types are ignored, as the Rust implementation does.
    } catch (error) {
      this.#respondError(frame.streamId, error);
    }
  }

  #request(frame: Frame): void {
    if (!frame.payload) throw tooLong(frame.length, Status.invalidArgument);
    if (frame.streamId % 2 !== 1) throw new TtrpcError(Status.invalidArgument, 'stream id must be odd');
    const request = decodeRequest(frame.payload);
    const method = this.#lookup(request.service, request.method);
    if (this.#calls.size >= maxOpenCalls) throw new TtrpcError(Status.resourceExhausted, 'too many open calls');
    if (!method.clientStreaming) {
      void this.#run(frame.streamId, method, request, undefined);
      return;
    }
    if (this.#streams.has(frame.streamId)) throw new TtrpcError(Status.invalidArgument, 'stream id is in use');
    const requests = new MessageQueue({ pause: () => this.#channel.pause(), resume: () => this.#channel.resume() });
    if (request.payload.length > 0) requests.push(request.payload);
    if ((frame.flags & Flag.remoteClosed) !== 0) requests.finish();
    void this.#run(frame.streamId, method, request, requests);
  }

  #data(frame: Frame): void {
    const requests = this.#streams.get(frame.streamId)?.requests;
    if (!requests) throw new TtrpcError(Status.invalidArgument, 'Stream is no longer active');
    if (!frame.payload) {
      requests.finish(tooLong(frame.length, Status.invalidArgument));
      return;
    }
    if ((frame.flags & Flag.noData) === 0) requests.push(frame.payload);
    if ((frame.flags & Flag.remoteClosed) !== 0) requests.finish();
  }

  /** Runs one call to its end. Never throws: every failure is answered. */
  async #run(
    streamId: number,
    method: BoundMethod,
    request: RequestEnvelope,
    requests: MessageQueue | undefined,
  ): Promise<void> {
    const controller = new AbortController();
    const call: OpenCall = { streamId, controller, requests };
    this.#calls.add(call);
    if (requests) this.#streams.set(streamId, call);
    const timer = this.#deadline(request.timeoutMs, controller);
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    aborted.catch(() => undefined);
    controller.signal.addEventListener('abort', () => reject(controller.signal.reason));
    try {
      const { service, method: name, metadata, timeoutMs } = request;
      const context = { signal: controller.signal, timeoutMs, metadata, service, method: name };
      const answers = method.run(requests ?? request.payload, context);
      await Promise.race([this.#answer(streamId, method, answers, controller.signal), aborted]);
    } catch (error) {
      this.#respondError(streamId, error);
    } finally {
      clearTimeout(timer);
      this.#calls.delete(call);
      if (this.#streams.get(streamId) === call) this.#streams.delete(streamId);
      requests?.abandon();
      if (this.#ended && this.#calls.size === 0) this.#channel.finish();
    }
  }

  async #answer(
    streamId: number,
    method: BoundMethod,
    answers: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    for await (const answer of answers) {
      if (signal.aborted) return;
      if (!method.serverStreaming) {
        this.#send(streamId, MessageType.response, 0, encodeResponse(answer));
        return;
      }
      // The same limit as for a response; encoding tells whether it holds.
      encodeResponse(answer);
      this.#send(streamId, MessageType.data, 0, answer);
      await this.#channel.drained();
    }
    if (!signal.aborted) this.#send(streamId, MessageType.data, Flag.remoteClosed | Flag.noData, new Uint8Array());
  }

  #deadline(timeoutMs: number | undefined, controller: AbortController): NodeJS.Timeout | undefined {
    if (timeoutMs === undefined || timeoutMs > longestTimerMs) return undefined;
    return setTimeout(() => controller.abort(new TtrpcError(Status.deadlineExceeded, 'timeout')), timeoutMs);
  }

  #respondError(streamId: number, error: unknown): void {
    this.#send(streamId, MessageType.response, 0, encodeErrorResponse(toTtrpcError(error)));
  }

  #send(streamId: number, type: number, flags: number, payload: Uint8Array): void {
    this.#channel.send({ streamId, type, flags }, payload);
    if (!this.#channel.congested || this.#held) return;
    // A client that does not read its answers may not ask for more.
    this.#held = true;
    this.#channel.pause();
    void this.#channel.drained().then(() => {
      this.#held = false;
      this.#channel.resume();
    });
  }

  #peerEnded(): void {
    this.#ended = true;
    for (const call of this.#streams.values()) {
      call.requests?.finish(new TtrpcError(Status.cancelled, 'the client ended the connection within a stream'));
    }
    if (this.#calls.size === 0) this.#channel.finish();
    else this.#graceTimer = setTimeout(() => this.#channel.destroy(), halfCloseGraceMs);
  }
}
