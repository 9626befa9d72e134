import type { Storage } from '@sealpod/storage';
import { type AmdEndorsementSource, chipName, tcbDigits } from './source.ts';

const namespace = 'collateral-amd';
const day = 86_400_000;

/** How long an answer is used before the source is asked again. A certificate of a chip and TCB does not change. */
const lifetimes = { certificate: 30 * day, list: day / 4 } as const;

/**
 * Keeps what a source answered in storage, so that it outlives the process and replicas share it, and asks once for what
 * many ask at the same time. Where the source is away, what it answered last is used: whoever relies on it looks at the
 * dates in it.
 */
export function cachedSource(source: AmdEndorsementSource, storage: Storage, now: () => Date): AmdEndorsementSource {
  const underway = new Map<string, Promise<Buffer | undefined>>();
  const once = (key: string, work: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> => {
    const known = underway.get(key) ?? work().finally(() => underway.delete(key));
    underway.set(key, known);
    return known;
  };
  const ask = (key: string, lifetime: number, fetch: () => Promise<Buffer | undefined>): Promise<Buffer | undefined> =>
    once(key, async () => {
      const entry = await storage.get(namespace, key);
      if (entry !== undefined && entry.updatedAt + lifetime > now().getTime()) return Buffer.from(entry.value);
      try {
        const fetched = await fetch();
        if (fetched !== undefined) await storage.put(namespace, key, fetched);
        return fetched;
      } catch (error) {
        if (entry === undefined) throw error;
        return Buffer.from(entry.value);
      }
    });
  return {
    name: source.name,
    chipKey: (request) => {
      const key = `vcek/${request.generation}/${chipName(request.generation, request.chipId)}/${Object.values(tcbDigits(request.tcb)).join('-')}`;
      return ask(key, lifetimes.certificate, () => source.chipKey(request));
    },
    revocationList: (generation) => ask(`crl/${generation}`, lifetimes.list, () => source.revocationList(generation)),
  };
}
