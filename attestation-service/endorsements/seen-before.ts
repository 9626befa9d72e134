import { SealpodError } from '@sealpod/protocol/errors';
import type { Storage } from '@sealpod/storage';

/**
 * Remembers the newest of each document that was ever verified, over restarts and for all replicas, so that an older one is
 * refused though its signature and dates hold: whoever serves it hides what the vendor has published since.
 */
export class SeenBefore {
  readonly #storage: Storage;
  readonly #namespace: string;

  /** @param vendor whose documents, in lower-case letters: keys of different vendors are kept apart */
  constructor(storage: Storage, vendor: string) {
    this.#storage = storage;
    this.#namespace = `collateral-${vendor}-seen`;
  }

  /**
   * Compares `order` (the first number that differs decides) with the greatest seen, and keeps it where it is greater.
   *
   * @throws SealpodError EV_COLLATERAL_ROLLBACK, STORAGE
   */
  async check(key: string, order: readonly number[], what: string): Promise<void> {
    const entry = await this.#storage.get(this.#namespace, key);
    const seen = entry === undefined ? undefined : (JSON.parse(Buffer.from(entry.value).toString()) as number[]);
    const comparison = seen === undefined ? 1 : compareOrders(order, seen);
    if (comparison < 0) {
      throw new SealpodError('EV_COLLATERAL_ROLLBACK', `${what} is older than one that was seen before`, {
        expected: `at least ${seen?.join('/')}`,
        actual: order.join('/'),
        source: key,
      });
    }
    if (comparison === 0) return;
    // Where another replica writes at the same time, the greater one has to win.
    await this.#storage.transaction(async (transaction) => {
      const now = await transaction.get(this.#namespace, key);
      const other = now === undefined ? undefined : (JSON.parse(Buffer.from(now.value).toString()) as number[]);
      if (other === undefined || compareOrders(order, other) > 0)
        await transaction.put(this.#namespace, key, JSON.stringify(order));
    });
  }
}

/** Positive where `left` is the greater: the first number that differs decides. */
export function compareOrders(left: readonly number[], right: readonly number[]): number {
  const at = left.findIndex((value, index) => value !== (right[index] ?? 0));
  return at < 0 ? 0 : (left[at] ?? 0) - (right[at] ?? 0);
}
