import type { Storage } from '@sealpod/storage';
import {
  cachedHygonSource,
  type HygonEndorsementSource,
  hygonFolder,
  hygonService,
} from '../../endorsements/hygon/sources.ts';
import type { HygonConfig } from './config.ts';

export { csvVerifier } from './csv.ts';
export { dcuVerifier } from './dcu.ts';
export { hygonRoot } from './root.ts';

/** The places that a configuration names. What Hygon's service answers is kept in `storage`. */
export function hygonSources(config: HygonConfig, storage: Storage, now: () => Date): HygonEndorsementSource[] {
  return config.sources.map((source) =>
    source.type === 'offline' ? hygonFolder(source.folder) : cachedHygonSource(hygonService(source.url), storage, now),
  );
}
