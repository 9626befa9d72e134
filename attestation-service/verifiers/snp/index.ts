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

/** The verifier of TEE `snp`. What AMD's service answered is kept in `storage`. */
export function snpVerifier(config: SnpConfig, storage: Storage, now: () => Date): Verifier {
  const sources = config.sources.map((source) =>
    source.type === 'offline'
      ? offlineStore(source.folder)
      : cachedSource(keyDistributionService(source.url), storage, now),
  );
  const { allowVersion2 = false, requireRevocationList = false } = config;
  return snpVerifierWith({ allowVersion2, requireRevocationList, root: amdRoot }, sources);
}

/** The verifier under roots and sources of the caller's, which are asked in their order for what the evidence does not bring. */
export function snpVerifierWith(rules: SnpRules, sources: readonly AmdEndorsementSource[]): Verifier {
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
