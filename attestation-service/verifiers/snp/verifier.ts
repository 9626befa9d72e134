import { parseSnpEvidence, parseSnpReport } from '@sealpod/protocol/snp';
import type { AmdEndorsementSource } from '../../endorsements/amd/source.ts';
import type { Verifier } from '../verifier.ts';
import { snpClaims } from './claims.ts';
import type { SnpConfig } from './config.ts';
import { endorse } from './endorse.ts';
import { amdRoot } from './root.ts';
import { type SnpRules, verifySnpReport } from './verify.ts';

/** The rules of a configuration, under AMD's own roots; nothing is remembered between reports. */
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
      const endorsements = await endorse(report, certificates, sources, rules, expectations.now);
      return {
        verdict: verifySnpReport(report, endorsements, rules, expectations),
        claims: snpClaims(report, endorsements),
      };
    },
  };
}
