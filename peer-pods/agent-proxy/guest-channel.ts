import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { CheckRequestSchema, Health } from '@sealpod/protocol/gen/kata/health_pb';
import { type CallOptions, Status, TtrpcConnection, TtrpcError } from '@sealpod/protocol/ttrpc';

export interface GuestChannelOptions {
  /** Unix socket that carries the bytes of the guest's serial port. */
  readonly socketPath: string;
  /** How long a call waits for a lost channel to come back; milliseconds. */
  readonly reconnectMs?: number;
  /** Pause between a loss and the next connection, in which the guest sees the loss and starts afresh; milliseconds. */
  readonly settleMs?: number;
  /** Whether the guest has been talking to somebody else before: a restarted adaptor's first connection is a reconnection. */
  readonly resumed?: boolean;
}

const retryMs = 50;

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

  constructor(options: GuestChannelOptions) {
    this.#options = { reconnectMs: 5000, settleMs: 300, resumed: false, ...options };
    if (this.#options.resumed) this.#lostAt = Date.now();
  }

  /** One call to the guest, in bytes. Throws the guest's TtrpcError, or `unavailable` where it cannot be reached. */
  async call(service: string, method: string, payload: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    const begun = Date.now();
    const connection = this.#connection ?? (await abandonable(this.#connect(), options));
    let timeoutMs: number | undefined;
    if (options.timeoutMs) {
      timeoutMs = options.timeoutMs - (Date.now() - begun);
      if (timeoutMs <= 0) throw new TtrpcError(Status.deadlineExceeded, 'timeout');
    }
    try {
      return await connection.call(service, method, payload, { ...options, timeoutMs });
    } catch (error) {
      if (!(error instanceof TtrpcError) || error.message !== 'ttrpc: closed') throw error;
      // The client's own connection is not closed, so it must not read that it is.
      throw unreachable('the connection to the guest was lost', error);
    }
  }

  /** Ends the connection; calls fail from now on. */
  close(): void {
    this.#closing.abort(unreachable('the agent proxy is closed'));
    this.#connection?.close();
  }

  #connect(): Promise<TtrpcConnection> {
    this.#connecting ??= this.#establish().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #establish(): Promise<TtrpcConnection> {
    const { socketPath, reconnectMs, settleMs } = this.#options;
    const deadline = Date.now() + reconnectMs;
    for (;;) {
      this.#closing.signal.throwIfAborted();
      const resumes = this.#lostAt !== undefined;
      if (this.#lostAt !== undefined) await sleep(Math.max(0, this.#lostAt + settleMs - Date.now()));
      try {
        const connection = await TtrpcConnection.connect(socketPath, { timeoutMs: 1000 });
        if (resumes) await this.#greet(connection, deadline);
        this.#closing.signal.throwIfAborted();
        return this.#adopt(connection);
      } catch (error) {
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

  #adopt(connection: TtrpcConnection): TtrpcConnection {
    this.#connection = connection;
    void connection.closed.then(() => {
      this.#lostAt = Date.now();
      if (this.#connection === connection) this.#connection = undefined;
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
