import type { Storage } from '@sealpod/storage';

/** How long a service that failed is left alone, in milliseconds; meanwhile what it answered last is used. */
const pauseAfterFailure = 10_000;

/**
 * Keeps what a collateral service answered in storage, so that it outlives the process and replicas share it, and asks once
 * for what many ask at the same time. Where the service is away, what it answered last is used: whoever relies on it
 * verifies it, and looks at the dates in it.
 */
export class AnswerCache {
  readonly #storage: Storage;
  readonly #namespace: string;
  readonly #now: () => Date;
  readonly #underway = new Map<string, Promise<Buffer | undefined>>();
  readonly #failures = new Map<string, { readonly until: number; readonly error: unknown }>();

  constructor(storage: Storage, namespace: string, now: () => Date) {
    this.#storage = storage;
    this.#namespace = namespace;
    this.#now = now;
  }

  /**
   * @param lifetime how long an answer is used before the service is asked again, in milliseconds
   * @returns undefined where the service has no such thing
   * @throws what `fetch` throws, where nothing is kept
   */
  ask(key: string, lifetime: number, fetch: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    const known = this.#underway.get(key);
    if (known !== undefined) return known;
    const asked = this.#ask(key, lifetime, fetch).finally(() => this.#underway.delete(key));
    this.#underway.set(key, asked);
    return asked;
  }

  async #ask(key: string, lifetime: number, fetch: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    const entry = await this.#storage.get(this.#namespace, key);
    const now = this.#now().getTime();
    if (entry !== undefined && entry.updatedAt + lifetime > now) return Buffer.from(entry.value);
    try {
      const failure = this.#failures.get(key);
      if (failure !== undefined && failure.until > now) throw failure.error;
      const fetched = await fetch();
      this.#failures.delete(key);
      if (fetched !== undefined) await this.#storage.put(this.#namespace, key, fetched);
      return fetched;
    } catch (error) {
      if (!this.#failures.has(key) || (this.#failures.get(key)?.until ?? 0) <= now)
        this.#failures.set(key, { until: now + pauseAfterFailure, error });
      if (entry === undefined) throw error;
      return Buffer.from(entry.value);
    }
  }
}
