import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { canonicalJson, type JsonObject } from '@sealpod/protocol/json';
import { jsonOf, type Storage } from '@sealpod/storage';
import { measuredClaims } from '../reference-values/measured.ts';

/** What verified evidence said, kept to learn reference values from and to try policies on. */
export interface SeenClaims {
  readonly tee: string;
  readonly teeClass: string;
  readonly correlationId: string;
  /** RFC 3339. */
  readonly at: string;
  /** The TEE's claims. */
  readonly claims: JsonObject;
  /** What the policy got as `input`, without the runtime data. */
  readonly input: JsonObject;
}

const namespace = 'attestation-seen';
/** Distinct measurements that are kept. A hostile guest can push others out; it cannot make the storage grow. */
const kept = 64;
const maxBytes = 512 * 1024;
const lifetimeMs = 30 * 24 * 3600_000;
/** At least so long between two writes, in milliseconds. */
const pauseMs = 1000;

/**
 * Claims of evidence that passed verification, one for each kind of machine: where all measured claims are the same as
 * those of a machine seen before, nothing is written. Kept for 30 days, 64 kinds at most.
 */
export class RecentClaims {
  readonly #storage: Storage;
  readonly #now: () => Date;
  readonly #known = new Set<string>();
  #lastWrite = 0;

  constructor(storage: Storage, now: () => Date) {
    this.#storage = storage;
    this.#now = now;
  }

  /** Remembers, if it can: a storage that is full or busy must not refuse a guest for what only helps operators. */
  async see(seen: Omit<SeenClaims, 'at'>): Promise<void> {
    const key = keyOf(seen);
    const now = this.#now();
    if (this.#known.has(key) || now.getTime() - this.#lastWrite < pauseMs) return;
    const { runtime_data_claims: _runtime, ...input } = seen.input;
    const text = JSON.stringify({ ...seen, input, at: now.toISOString() });
    if (this.#known.size >= kept * 4) this.#known.clear();
    this.#known.add(key);
    if (Buffer.byteLength(text) > maxBytes) return;
    this.#lastWrite = now.getTime();
    await this.#write(key, text, now).catch(() => this.#known.delete(key));
  }

  #write(key: string, text: string, now: Date): Promise<void> {
    return this.#storage.transaction(async (transaction) => {
      const present = await transaction.list(namespace);
      if (present.every((entry) => entry.key !== key)) {
        const oldest = present.toSorted((left, right) => left.updatedAt - right.updatedAt);
        for (const entry of oldest.slice(0, Math.max(0, present.length - kept + 1)))
          await transaction.delete(namespace, entry.key);
      }
      await transaction.put(namespace, key, text, { expiresAt: now.getTime() + lifetimeMs });
    });
  }

  /** Newest first. @throws SealpodError STORAGE */
  async list(): Promise<SeenClaims[]> {
    const entries = await this.#storage.list(namespace);
    return entries
      .map((entry) => jsonOf(entry) as SeenClaims)
      .toSorted((left, right) => right.at.localeCompare(left.at));
  }

  /** @throws SealpodError NOT_FOUND naming what there is */
  async find(wanted: { readonly correlationId: string } | { readonly tee: string }): Promise<SeenClaims> {
    const all = await this.list();
    const found = all.find((seen) =>
      'tee' in wanted ? seen.tee === wanted.tee : seen.correlationId === wanted.correlationId,
    );
    if (found !== undefined) return found;
    throw new SealpodError('NOT_FOUND', 'no such evidence has been verified here', {
      expected: `one of: ${all.map(({ tee, correlationId }) => `${tee} ${correlationId}`).join(', ') || 'none yet'}`,
      actual: ('tee' in wanted ? wanted.tee : wanted.correlationId).slice(0, 64),
    });
  }
}

function keyOf({ tee, claims }: Pick<SeenClaims, 'tee' | 'claims'>): string {
  const components = measuredClaims(tee).map(({ id, read }) => [id, read(claims) ?? null] as const);
  // What nothing is held against tells no kinds apart: one of each TEE is enough.
  const content = Object.fromEntries(components);
  return createHash('sha256').update(canonicalJson({ tee, content })).digest('hex');
}
