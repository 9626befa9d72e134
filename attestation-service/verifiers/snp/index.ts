import { parseSnpEvidence, parseSnpReport } from '@sealpod/protocol/snp';
import type { Storage } from '@sealpod/storage';
import { cachedSource } from '../../endorsements/amd/cached-source.ts';
import { keyDistributionService } from '../../endorsements/amd/key-distribution-service.ts';
import { offlineStore } from '../../endorsements/amd/offline-store.ts';
import type { AmdEndorsementSource } from '../../endorsements/amd/source.ts';
import type { Verifier } from '../verifier.ts';
import { snpClaims } from './claims.ts';
import type { SnpConfig } from './config.ts';
import { endorse } from './endorse.ts';
import { amdRoot } from './root.ts';
import { type SnpRules, verifySnpReport } from './verify.ts';

/** The places that a configuration names. What AMD's service answers is kept in `storage`. */
export function amdSources(config: SnpConfig, storage: Storage, now: () => Date): AmdEndorsementSource[] {
  return config.sources.map((source) =>
    source.type === 'offline'
      ? offlineStore(source.folder)
      : cachedSource(keyDistributionService(source.url), storage, now),
  );
}

/** The rules of a configuration, under AMD's own roots. */
export function snpRules({ allowVersion2 = false, requireRevocationList = false }: SnpConfig): SnpRules {
  return { allowVersion2, requireRevocationList, root: amdRoot };
}

/** The verifier of TEE `snp`. `sources` are asked in their order for what the evidence does not bring. */
export function snpVerifier(rules: SnpRules, sources: readonly AmdEndorsementSource[]): Verifier {
  return {
    tee: 'snp',
    verify: async (evidence, expectations) => {
      const { report: bytes, certificates } = parseSnpEvidence(evidence);
      const report = parseSnpReport(bytes);
      const endorsements = await endorse(report, certificates, sources, rules.root);
      return {
        verdict: verifySnpReport(report, endorsements, rules, expectations),
        claims: snpClaims(report, endorsements),
      };
    },
  };
}
