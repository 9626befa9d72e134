import type { Storage } from '@sealpod/storage';
import { AnswerCache } from '../answer-cache.ts';
import { type AmdEndorsementSource, chipName, tcbDigits } from './source.ts';

const day = 86_400_000;

/** How long an answer is used before the source is asked again. A certificate of a chip and TCB does not change. */
const lifetimes = { certificate: 30 * day, list: day / 4 } as const;

/** Keeps what a source answered in storage. */
export function cachedSource(source: AmdEndorsementSource, storage: Storage, now: () => Date): AmdEndorsementSource {
  const cache = new AnswerCache(storage, 'collateral-amd', now);
  return {
    name: source.name,
    chipKey: (request) => {
      const key = `vcek/${request.generation}/${chipName(request.generation, request.chipId)}/${Object.values(tcbDigits(request.tcb)).join('-')}`;
      return cache.ask(key, lifetimes.certificate, () => source.chipKey(request));
    },
    revocationList: (generation) =>
      cache.ask(`crl/${generation}`, lifetimes.list, () => source.revocationList(generation)),
  };
}
