import { SealpodError } from '@sealpod/protocol/errors';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { streamOffsetFeature, streamOffsetKey } from '@sealpod/protocol/stream-offset';
import {
  type CallOptions,
  type Client,
  createClient,
  Status,
  TtrpcConnection,
  TtrpcError,
} from '@sealpod/protocol/ttrpc';
import type { ShimConfiguration } from '../configuration.ts';
import type { Logger } from '../log.ts';

type Agent = Client<typeof AgentService>;
const dialMs = 2000;
const redialMs = 100;
/** A guest that is not reached for so long while its adaptor answers is gone. */
const graceMs = 2000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

type Settings = Pick<ShimConfiguration, 'reconnectTimeout' | 'healthCheckInterval' | 'healthCheckTimeout'>;

/**
 * The connection to the agent of one guest: one stream for all calls, made again when the adaptor, which relays it, was
 * restarted. `lost` resolves, with the reason, when the guest itself is gone.
 */
export class GuestConnection {
  readonly lost: Promise<string>;
  readonly #socketPath: string;
  readonly #settings: Settings;
  readonly #adaptorAnswers: () => Promise<boolean>;
  readonly #log: Logger;
  #connection: TtrpcConnection | undefined;
  #connecting: Promise<TtrpcConnection> | undefined;
  #declareLost: (reason: string) => void = () => undefined;
  #closed = false;
  /** Since when the adaptor's relay has been saying that it does not reach the guest. */
  #outOfReachSince: number | undefined;
  /** Whether the agent counts the bytes of streams, so that a call that moves some can be repeated. */
  #streamOffsets = false;
  #healthTimer: NodeJS.Timeout | undefined;

  constructor(socketPath: string, settings: Settings, adaptorAnswers: () => Promise<boolean>, log: Logger) {
    this.#socketPath = socketPath;
    this.#settings = settings;
    this.#adaptorAnswers = adaptorAnswers;
    this.#log = log;
    this.lost = new Promise((resolve) => {
      this.#declareLost = resolve;
    });
  }

  /**
   * Connects and checks that the agent serves, and from then on watches it.
   *
   * @throws SealpodError AGENT_UNREACHABLE when it does not within the reconnect time.
   */
  async open(): Promise<void> {
    await this.#connect(true);
    this.#watchHealth();
  }

  /** One call to the agent. Not repeated: the agent's words come back as they are. */
  async call<T>(run: (agent: Agent) => Promise<T>): Promise<T> {
    const connection = await this.#connect(false);
    try {
      return await run(createClient(AgentService, connection));
    } catch (thrown) {
      this.#heed(thrown);
      if (!this.#lostDuring(connection, thrown)) throw thrown;
      throw new SealpodError('AGENT_UNREACHABLE', 'the connection to the guest was lost during the call', {
        cause: thrown,
      });
    }
  }

  /** A call that only waits (for output, an exit, an event): repeated on a new connection when the old one is lost. */
  async waitCall<T>(run: (agent: Agent) => Promise<T>): Promise<T> {
    for (;;) {
      const connection = await this.#connect(false);
      try {
        const answer = await run(createClient(AgentService, connection));
        this.#outOfReachSince = undefined;
        return answer;
      } catch (thrown) {
        this.#heed(thrown);
        if (isOutOfReach(thrown) && !this.#closed) await this.#awaitRelay(thrown);
        else if (!this.#lostDuring(connection, thrown)) throw thrown;
      }
    }
  }

  /**
   * A call that moves bytes of a stream from `offset` on: repeated as a waiting call where the agent counts them, and
   * else, since some might be moved twice, only as `repeatable` says.
   */
  streamCall<T>(
    offset: number,
    repeatable: boolean,
    run: (agent: Agent, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    if (this.#streamOffsets) {
      const options = { metadata: { [streamOffsetKey]: [String(offset)] } };
      return this.waitCall((agent) => run(agent, options));
    }
    return repeatable ? this.waitCall((agent) => run(agent, {})) : this.call((agent) => run(agent, {}));
  }

  /** What the agent said it can. */
  use(features: readonly string[]): void {
    this.#streamOffsets = features.includes(streamOffsetFeature);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#healthTimer);
    this.#connection?.close();
  }

  /** The adaptor knows when a machine has ended for good. */
  #heed(thrown: unknown): void {
    if (hasCode(thrown, 'VM_ENDED') && !this.#closed) this.#declareLost(thrown.message);
  }

  /** The relay dials the guest again by itself; whoever waits asks it again. Throws `thrown` when that took too long. */
  async #awaitRelay(thrown: unknown): Promise<void> {
    this.#outOfReachSince ??= Date.now();
    if (Date.now() - this.#outOfReachSince > this.#settings.reconnectTimeout * 1000) {
      this.#declareLost(String(thrown));
      throw thrown;
    }
    await pause(redialMs);
  }

  #lostDuring(connection: TtrpcConnection, thrown: unknown): boolean {
    if (connection !== this.#connection) return true;
    if (!(thrown instanceof TtrpcError) || thrown.message !== 'ttrpc: closed') return false;
    this.#connection = undefined;
    connection.close();
    return true;
  }

  #connect(first: boolean): Promise<TtrpcConnection> {
    if (this.#closed) {
      return Promise.reject(new SealpodError('AGENT_UNREACHABLE', 'the guest is stopped'));
    }
    if (this.#connection !== undefined) return Promise.resolve(this.#connection);
    this.#connecting ??= this.#dial(first).finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #attempt(): Promise<TtrpcConnection> {
    const connection = await TtrpcConnection.connect(this.#socketPath, { timeoutMs: dialMs });
    try {
      await createClient(Health, connection).check(
        { service: '' },
        { timeoutMs: this.#settings.healthCheckTimeout * 1000 },
      );
      return connection;
    } catch (thrown) {
      connection.close();
      throw thrown;
    }
  }

  async #dial(first: boolean): Promise<TtrpcConnection> {
    const began = Date.now();
    let cause: unknown;
    while (!this.#closed) {
      try {
        const connection = await this.#attempt();
        if (this.#closed) {
          connection.close();
          break;
        }
        this.#connection = connection;
        void connection.closed.then(() => this.#dropped(connection));
        return connection;
      } catch (thrown) {
        cause = thrown;
      }
      const waited = Date.now() - began;
      if (waited > this.#settings.reconnectTimeout * 1000 || hasCode(cause, 'VM_ENDED')) break;
      // The relay is there and dials the guest itself.
      const relayed = isOutOfReach(cause);
      if (!first && !relayed && waited > graceMs && (await this.#adaptorAnswers())) break;
      await pause(redialMs);
    }
    const error = new SealpodError('AGENT_UNREACHABLE', `the guest agent does not answer on ${this.#socketPath}`, {
      actual: String(cause),
      cause,
    });
    if (!first && !this.#closed) this.#declareLost(`${error.message}: ${String(cause)}`);
    throw error;
  }

  #dropped(connection: TtrpcConnection): void {
    if (this.#connection === connection) this.#connection = undefined;
    if (this.#closed) return;
    this.#log.info('connection to the guest was lost, dialling again');
    this.#connect(false).catch((error) => this.#log.info('the guest is gone', { error }));
  }

  /** Health.Check at the interval set; the first failure on a standing connection ends the pod, as in Kata. */
  #watchHealth(): void {
    this.#healthTimer = setTimeout(async () => {
      const connection = this.#connection;
      try {
        if (connection !== undefined) {
          await createClient(Health, connection).check(
            { service: '' },
            { timeoutMs: this.#settings.healthCheckTimeout * 1000 },
          );
        }
        this.#outOfReachSince = undefined;
      } catch (thrown) {
        this.#heed(thrown);
        if (isOutOfReach(thrown)) await this.#awaitRelay(thrown).catch(() => undefined);
        else if (connection !== undefined && !this.#lostDuring(connection, thrown) && !this.#closed) {
          this.#declareLost(`health check failed: ${String(thrown)}`);
          return;
        }
      }
      if (!this.#closed) this.#watchHealth();
    }, this.#settings.healthCheckInterval * 1000);
    this.#healthTimer.unref();
  }
}

/** How the adaptor's relay says what became of the guest: status and reason code. */
function hasCode(thrown: unknown, code: 'AGENT_UNREACHABLE' | 'VM_ENDED'): thrown is TtrpcError {
  return thrown instanceof TtrpcError && thrown.status === Status.unavailable && thrown.message.startsWith(`${code}: `);
}

/** Whether the relay has lost the guest, which may come back. */
const isOutOfReach = (thrown: unknown): boolean => hasCode(thrown, 'AGENT_UNREACHABLE');

/** Whether the agent says that there is no such process (any more). */
export function isNotFound(thrown: unknown): boolean {
  return thrown instanceof TtrpcError && thrown.status === Status.notFound;
}

/** Whether a call failed because the guest was out of reach, and so may or may not have been carried out. */
export function isConnectionLoss(thrown: unknown): boolean {
  return isOutOfReach(thrown) || (thrown instanceof SealpodError && thrown.code === 'AGENT_UNREACHABLE');
}
