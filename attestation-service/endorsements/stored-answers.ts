import type { Storage } from '@sealpod/storage';

/** Asks for `key` what was answered within `lifetimeMs`, else whoever `fetch` asks. */
export type AskStored = (
  key: string,
  lifetimeMs: number,
  fetch: () => Promise<Buffer | undefined>,
) => Promise<Buffer | undefined>;

/**
 * Keeps answers in storage, so that they outlive the process and replicas share them, and asks once for what many ask at the
 * same time. Where the source is away, what it answered last is used: whoever relies on it looks at the dates in it.
 */
export function storedAnswers(storage: Storage, namespace: string, now: () => Date): AskStored {
  const underway = new Map<string, Promise<Buffer | undefined>>();
  const once = (key: string, work: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> => {
    const known = underway.get(key) ?? work().finally(() => underway.delete(key));
    underway.set(key, known);
    return known;
  };
  return (key, lifetimeMs, fetch) =>
    once(key, async () => {
      const entry = await storage.get(namespace, key);
      if (entry !== undefined && entry.updatedAt + lifetimeMs > now().getTime()) return Buffer.from(entry.value);
      try {
        const fetched = await fetch();
        if (fetched !== undefined) await storage.put(namespace, key, fetched);
        return fetched;
      } catch (error) {
        if (entry === undefined) throw error;
        return Buffer.from(entry.value);
      }
    });
}
