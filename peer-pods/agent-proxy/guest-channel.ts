import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { CheckRequestSchema, Health } from '@sealpod/protocol/gen/kata/health_pb';
import {
  type CallOptions,
  type RelayedCall,
  type RelayedRequest,
  Status,
  TtrpcConnection,
  TtrpcError,
} from '@sealpod/protocol/ttrpc';

export interface GuestChannelOptions {
  /** Unix socket that carries the bytes of the guest's serial port. */
  readonly socketPath: string;
  /** How long a call waits for a lost channel to come back; milliseconds. */
  readonly reconnectMs?: number;
  /** Pause between a loss and the next connection, in which the guest sees the loss and starts afresh; milliseconds. */
  readonly settleMs?: number;
  /** Whether the guest has been talking to somebody else before: a restarted adaptor's first connection is a reconnection. */
  readonly resumed?: boolean;
  /** Makes the connection, in so many milliseconds; by default without TLS. */
  readonly dial?: (socketPath: string, timeoutMs: number) => Promise<TtrpcConnection>;
  /** Called at each loss of a connection that was established, but not when the channel is closed. */
  readonly onLost?: () => void;
}

const retryMs = 50;
/**
 * How long a guest that talked before has for a handshake, and one that may still have to boot: what is sent to it waits in
 * its serial port, so a second attempt would find the first before it.
 */
const dialMs = { again: 5000, first: 3_600_000 };

const dialPlain = (socketPath: string): Promise<TtrpcConnection> =>
  TtrpcConnection.connect(socketPath, { timeoutMs: 1000 });

/**
 * The one connection to the agent in a guest. It is made on first use, and again after a loss; a call that was on its
 * way then fails with `unavailable`, since the guest may or may not have done what it asked.
 */
export class GuestChannel {
  readonly #options: Required<GuestChannelOptions>;
  readonly #closing = new AbortController();
  #connection: TtrpcConnection | undefined;
  #connecting: Promise<TtrpcConnection> | undefined;
  #lostAt: number | undefined;
  #draining: Promise<void> | undefined;

  constructor(options: GuestChannelOptions) {
    this.#options = {
      ...{ reconnectMs: 10_000, settleMs: 300, resumed: false, dial: dialPlain, onLost: () => undefined },
      ...options,
    };
    if (this.#options.resumed) this.#lostAt = Date.now();
  }

  /** One call to the guest, in bytes. Throws the guest's TtrpcError, or `unavailable` where it cannot be reached. */
  async call(service: string, method: string, payload: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    const begun = Date.now();
    const connection = this.#connection ?? (await this.connect(options));
    let timeoutMs: number | undefined;
    if (options.timeoutMs) {
      timeoutMs = options.timeoutMs - (Date.now() - begun);
      if (timeoutMs <= 0) throw new TtrpcError(Status.deadlineExceeded, 'timeout');
    }
    try {
      return await connection.call(service, method, payload, { ...options, timeoutMs });
    } catch (error) {
      throw this.#told(error);
    }
  }

  /** Whether a request can be passed on at once. */
  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** Waits for the connection, no longer than the options allow. Throws `unavailable`, `deadlineExceeded`, `cancelled`. */
  connect(options: CallOptions = {}): Promise<TtrpcConnection> {
    this.#connecting ??= this.#establish().finally(() => {
      this.#connecting = undefined;
    });
    return abandonable(this.#connecting, options);
  }

  /** Passes a request on as it is. Throws `unavailable` where the guest is not connected. */
  relay(request: RelayedRequest): RelayedCall {
    if (!this.#connection) throw unreachable('the guest is not connected');
    return this.#connection.relay({ ...request, fail: (error) => request.fail(this.#told(error)) });
  }

  /** Resolves once the guest takes more; absent where it does now. */
  congestion(): Promise<void> | undefined {
    if (!this.#connection?.congested) return undefined;
    this.#draining ??= this.#connection.drained().finally(() => {
      this.#draining = undefined;
    });
    return this.#draining;
  }

  /** The guest is gone for good: calls fail with this from now on. */
  end(reason: TtrpcError): void {
    this.#closing.abort(reason);
    this.#connection?.close();
  }

  /** Ends the connection; calls fail from now on. */
  close(): void {
    this.end(unreachable('the agent proxy is closed'));
  }

  async #establish(): Promise<TtrpcConnection> {
    const { socketPath, reconnectMs, settleMs, dial } = this.#options;
    const deadline = Date.now() + reconnectMs;
    for (;;) {
      this.#closing.signal.throwIfAborted();
      const resumes = this.#lostAt !== undefined;
      if (this.#lostAt !== undefined) await sleep(Math.max(0, this.#lostAt + settleMs - Date.now()));
      try {
        const connection = await dial(socketPath, resumes ? dialMs.again : dialMs.first);
        if (resumes) await this.#greet(connection, deadline);
        this.#closing.signal.throwIfAborted();
        return this.#adopt(connection);
      } catch (error) {
        this.#closing.signal.throwIfAborted();
        if (Date.now() >= deadline) throw unreachable(`the guest cannot be reached at ${socketPath}`, error);
        await sleep(retryMs);
      }
    }
  }

  /**
   * Makes sure that both ends of a new connection are in step: a guest that still waits for the rest of a frame of the
   * old one would take ours for it and never answer. Then the connection is dropped and the guest given time to notice.
   */
  async #greet(connection: TtrpcConnection, deadline: number): Promise<void> {
    const request = toBinary(CheckRequestSchema, create(CheckRequestSchema));
    const timeoutMs = Math.max(100, Math.min(2000, deadline - Date.now()));
    try {
      await connection.call(Health.typeName, Health.method.check.name, request, { timeoutMs });
    } catch (error) {
      // Any answer of the guest shows that it is in step.
      if (
        error instanceof TtrpcError &&
        error.status !== Status.deadlineExceeded &&
        error.status !== Status.unavailable
      )
        return;
      connection.close();
      this.#lostAt = Date.now();
      throw error;
    }
  }

  /** The client's own connection is not closed, so it must not read that it is. */
  #told(error: unknown): TtrpcError {
    if (!(error instanceof TtrpcError)) throw error;
    if (error.message !== 'ttrpc: closed') return error;
    const { aborted, reason } = this.#closing.signal;
    return aborted && reason instanceof TtrpcError
      ? reason
      : unreachable('the connection to the guest was lost', error);
  }

  #adopt(connection: TtrpcConnection): TtrpcConnection {
    this.#connection = connection;
    void connection.closed.then(() => {
      this.#lostAt = Date.now();
      if (this.#connection === connection) this.#connection = undefined;
      if (!this.#closing.signal.aborted) this.#options.onLost();
    });
    return connection;
  }
}

function unreachable(message: string, cause?: unknown): TtrpcError {
  return new TtrpcError(Status.unavailable, `AGENT_UNREACHABLE: ${message}`, { cause });
}

/** Waits for a shared promise no longer than the call's own deadline and signal allow. */
async function abandonable<T>(shared: Promise<T>, { timeoutMs, signal }: CallOptions): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = timeoutMs
    ? setTimeout(() => reject(new TtrpcError(Status.deadlineExceeded, 'timeout')), Math.min(timeoutMs, 2 ** 31 - 1))
    : undefined;
  const onAbort = () => reject(new TtrpcError(Status.cancelled, 'cancelled', { cause: signal?.reason }));
  signal?.addEventListener('abort', onAbort);
  try {
    signal?.throwIfAborted();
    return await Promise.race([shared, promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}
