/** What became of one piece of work: done, or to be looked at again after a while. */
export interface Outcome {
  readonly againAfterMs?: number;
}

export interface WorkQueueOptions {
  /** @returns when it is to be done again, at the latest. Whatever it throws is tried again, less and less often. */
  readonly work: (key: string, signal: AbortSignal) => Promise<Outcome>;
  readonly failed: (key: string, thrown: unknown, delayMs: number) => void;
  readonly firstRetryMs?: number;
  readonly mostRetryMs?: number;
}

/**
 * Work by keys, one at a time: a key that is added while it waits is done once, and one that is added while it is being
 * done is done again.
 */
export class WorkQueue {
  readonly #options: Required<WorkQueueOptions>;
  readonly #waiting = new Set<string>();
  readonly #timers = new Map<string, { readonly timer: NodeJS.Timeout; readonly at: number }>();
  readonly #failures = new Map<string, number>();
  readonly #abort = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: WorkQueueOptions) {
    this.#options = { firstRetryMs: 500, mostRetryMs: 60_000, ...options };
  }

  /** How many keys wait to be done now. */
  get depth(): number {
    return this.#waiting.size;
  }

  /** Has the work of `key` done as soon as possible. */
  add(key: string): void {
    if (this.#abort.signal.aborted) return;
    this.#waiting.add(key);
    this.#start();
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#waiting.size > 0) this.#start();
    });
  }

  /** Has it done after a while, or earlier where it is added meanwhile. */
  addAfter(key: string, delayMs: number): void {
    if (this.#abort.signal.aborted) return;
    const at = Date.now() + delayMs;
    const planned = this.#timers.get(key);
    if (planned !== undefined && planned.at <= at) return;
    clearTimeout(planned?.timer);
    const timer = setTimeout(() => {
      this.#timers.delete(key);
      this.add(key);
    }, delayMs);
    this.#timers.set(key, { timer, at });
  }

  /** Takes nothing more, and waits for the work that is being done. */
  async stop(): Promise<void> {
    this.#abort.abort();
    this.#waiting.clear();
    for (const { timer } of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    await this.#running;
  }

  async #run(): Promise<void> {
    // Let whoever adds several keys at once finish.
    await Promise.resolve();
    for (const key of this.#waiting) {
      this.#waiting.delete(key);
      await this.#do(key);
      if (this.#abort.signal.aborted) return;
    }
  }

  async #do(key: string): Promise<void> {
    const { work, failed, firstRetryMs, mostRetryMs } = this.#options;
    try {
      const { againAfterMs } = await work(key, this.#abort.signal);
      this.#failures.delete(key);
      if (againAfterMs !== undefined) this.addAfter(key, againAfterMs);
    } catch (thrown) {
      const failures = this.#failures.get(key) ?? 0;
      this.#failures.set(key, failures + 1);
      const delay = Math.min(firstRetryMs * 2 ** failures, mostRetryMs);
      failed(key, thrown, delay);
      this.addAfter(key, delay);
    }
  }
}
