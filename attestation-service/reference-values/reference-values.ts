import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import { checkId } from '../policy/policy-id.ts';
import type { StoredReferenceValue } from '../service.ts';
import type { Snapshots } from '../snapshot.ts';
import { parseReferenceValueMessage } from './message.ts';
import { referenceValueNamespace } from './record.ts';

const maxValueBytes = 256 * 1024;
/** Upstream lets values of a message live for twelve months; unlike upstream, we enforce it. */
const messageLifetimeMonths = 12;

/** Reference values in storage. A version is the storage generation of its write, so it never repeats for an id. */
export class ReferenceValues {
  readonly #snapshots: Snapshots;
  readonly #now: () => Date;

  constructor(snapshots: Snapshots, now: () => Date) {
    this.#snapshots = snapshots;
    this.#now = now;
  }

  async set(
    id: string,
    value: JsonValue,
    options: { readonly expiresAt?: string } = {},
  ): Promise<StoredReferenceValue> {
    const [stored] = await this.#setAll([[id, value]], options.expiresAt);
    if (stored === undefined) throw new SealpodError('INTERNAL', 'the reference value was not stored');
    return stored;
  }

  /** Registers all values of a message, or none. */
  async register(message: string): Promise<void> {
    const expires = this.#now();
    expires.setUTCMonth(expires.getUTCMonth() + messageLifetimeMonths);
    await this.#setAll(Object.entries(parseReferenceValueMessage(message)), expires.toISOString());
  }

  async get(id: string): Promise<StoredReferenceValue | undefined> {
    return (await this.#snapshots.current()).referenceValues.get(id);
  }

  async list(): Promise<StoredReferenceValue[]> {
    return [...(await this.#snapshots.current()).referenceValues.values()];
  }

  delete(id: string): Promise<boolean> {
    return this.#snapshots.write((transaction) => transaction.delete(referenceValueNamespace, id));
  }

  async #setAll(
    values: readonly (readonly [string, JsonValue])[],
    expiresAt: string | undefined,
  ): Promise<StoredReferenceValue[]> {
    for (const [id, value] of values) {
      checkId('reference value', id);
      if (Buffer.byteLength(JSON.stringify(value)) > maxValueBytes) {
        throw new SealpodError('REQUEST_TOO_LARGE', `reference value ${id} is too large`, {
          expected: `at most ${maxValueBytes} bytes`,
        });
      }
    }
    const expiry = expiresAt === undefined ? {} : { expiresAt: parseDate(expiresAt) };
    const updatedAt = this.#now().toISOString();
    return this.#snapshots.write(async (transaction, version) => {
      const stored = values.map(([id, value]) => ({ id, value, version, updatedAt, ...expiry }));
      for (const { id, ...record } of stored)
        await transaction.put(referenceValueNamespace, id, JSON.stringify(record));
      return stored;
    });
  }
}

function parseDate(text: string): string {
  const time = /^\d{4}-\d{2}-\d{2}T/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time)) {
    throw new SealpodError('REQUEST_FORMAT', 'expiresAt is not a date', {
      expected: 'RFC 3339',
      actual: text.slice(0, 64),
    });
  }
  return new Date(time).toISOString();
}
