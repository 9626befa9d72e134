import { SealpodError } from '@sealpod/protocol/errors';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { type Client, createClient, Status, TtrpcConnection, TtrpcError } from '@sealpod/protocol/ttrpc';
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
        return await run(createClient(AgentService, connection));
      } catch (thrown) {
        if (!this.#lostDuring(connection, thrown)) throw thrown;
      }
    }
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#healthTimer);
    this.#connection?.close();
  }

  #lostDuring(connection: TtrpcConnection, thrown: unknown): boolean {
    if (connection !== this.#connection) return true;
    if (!(thrown instanceof TtrpcError) || thrown.message !== 'ttrpc: closed') return false;
    // Also where the adaptor's relay says so: its connection to the guest ended, ours to it is of no more use.
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
      if (waited > this.#settings.reconnectTimeout * 1000) break;
      if (!first && waited > graceMs && (await this.#adaptorAnswers())) break;
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
      } catch (thrown) {
        if (connection !== undefined && !this.#lostDuring(connection, thrown) && !this.#closed) {
          this.#declareLost(`health check failed: ${String(thrown)}`);
          return;
        }
      }
      if (!this.#closed) this.#watchHealth();
    }, this.#settings.healthCheckInterval * 1000);
    this.#healthTimer.unref();
  }
}

/** Whether the agent says that there is no such process (any more). */
export function isNotFound(thrown: unknown): boolean {
  return thrown instanceof TtrpcError && thrown.status === Status.notFound;
}
