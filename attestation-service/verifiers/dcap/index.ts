import type { Storage } from '@sealpod/storage';
import { collateralBundle } from '../../endorsements/intel/bundle.ts';
import { cachedSource } from '../../endorsements/intel/cached-source.ts';
import { IntelCollateral } from '../../endorsements/intel/collateral.ts';
import { provisioningService } from '../../endorsements/intel/provisioning-service.ts';
import { intelRoot } from '../../endorsements/intel/root.ts';
import type { IntelCollateralSource } from '../../endorsements/intel/source.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import type { DcapConfig, IntelSourceConfig } from './config.ts';
import type { DcapRules } from './endorse.ts';

/** The rules of a configuration under Intel's root. What its services answer is kept in `storage`. */
export function dcapRules(config: DcapConfig, storage: Storage, now: () => Date): DcapRules {
  const { sources, acceptExpiredCollateral = false } = config;
  // Recoveries of the TCB are counted apart in the two channels.
  const channel = sources.map(({ update = 'early' }) => update).join('+');
  return {
    root: intelRoot(),
    collateral: new IntelCollateral({
      sources: sources.map((source) => sourceOf(source, storage, now)),
      root: intelRoot(),
      seen: new SeenBefore(storage, 'intel'),
      channel,
    }),
    acceptExpiredCollateral,
  };
}

function sourceOf(source: IntelSourceConfig, storage: Storage, now: () => Date): IntelCollateralSource {
  const { type, update = 'early' } = source;
  if (type === 'bundle') return collateralBundle(source.path, update);
  const { url } = source;
  const service = provisioningService({ kind: type, update, ...(url === undefined ? {} : { url }) });
  return cachedSource(service, `${type}/${url ?? ''}/${update}`, storage, now);
}
