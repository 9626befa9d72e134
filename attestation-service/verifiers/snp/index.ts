import type { Storage } from '@sealpod/storage';
import { cachedSource } from '../../endorsements/amd/cached-source.ts';
import { keyDistributionService } from '../../endorsements/amd/key-distribution-service.ts';
import { offlineStore } from '../../endorsements/amd/offline-store.ts';
import type { AmdEndorsementSource } from '../../endorsements/amd/source.ts';
import type { SnpConfig } from './config.ts';

export { snpRules, snpVerifier } from './verifier.ts';

/** The places that a configuration names. What AMD's service answers is kept in `storage`. */
export function amdSources(config: SnpConfig, storage: Storage, now: () => Date): AmdEndorsementSource[] {
  return config.sources.map((source) =>
    source.type === 'offline'
      ? offlineStore(source.folder)
      : cachedSource(keyDistributionService(source.url), storage, now),
  );
}
