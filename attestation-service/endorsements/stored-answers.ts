import { setTimeout as delay } from 'node:timers/promises';
import type { Storage } from '@sealpod/storage';

/** Asks for `key` what was answered within `lifetimeMs`, else whoever `fetch` asks. */
export type AskStored = (
  key: string,
  lifetimeMs: number,
  fetch: () => Promise<Buffer | undefined>,
) => Promise<Buffer | undefined>;

/** How long a source that is asked anew may keep those waiting who could do with its last answer, in milliseconds. */
const patienceMs = 2_000;

/**
 * Keeps answers in storage, so that they outlive the process and replicas share them, and asks once for what many ask at the
 * same time. Where the source is away or slow, what it answered last is used, and its new answer when it comes: whoever
 * relies on it looks at the dates in it.
 */
export function storedAnswers(storage: Storage, namespace: string, now: () => Date): AskStored {
  const underway = new Map<string, Promise<Buffer | undefined>>();
  const once = (key: string, work: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> => {
    const known = underway.get(key) ?? work().finally(() => underway.delete(key));
    underway.set(key, known);
    return known;
  };
  return async (key, lifetimeMs, fetch) => {
    const entry = await storage.get(namespace, key);
    if (entry !== undefined && entry.updatedAt + lifetimeMs > now().getTime()) return Buffer.from(entry.value);
    const renewal = once(key, async () => {
      const fetched = await fetch();
      if (fetched !== undefined) await storage.put(namespace, key, fetched);
      return fetched;
    });
    if (entry === undefined) return renewal;
    const last = Buffer.from(entry.value);
    return Promise.race([renewal.catch(() => last), delay(patienceMs, last, { ref: false })]);
  };
}
