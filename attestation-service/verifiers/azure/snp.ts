import { parseAzureVtpmEvidence } from '@sealpod/protocol/azure';
import type { JsonObject } from '@sealpod/protocol/json';
import { parseSnpReport } from '@sealpod/protocol/snp';
import type { AmdEndorsementSource } from '../../endorsements/amd/source.ts';
import { allOf } from '../check.ts';
import { snpClaims } from '../snp/claims.ts';
import { endorse } from '../snp/endorse.ts';
import { type SnpRules, verifySnpReport } from '../snp/verify.ts';
import type { Verifier } from '../verifier.ts';
import { checkVirtualTpm, parseVirtualTpm, virtualTpmClaims } from './virtual-tpm.ts';

const snpReportType = 2;

/**
 * The verifier of TEE `az-snp-vtpm`: an SNP report whose report data hold the virtual TPM's key, and a quote of that TPM.
 * The certificate comes along; `sources` are asked for the revocation list.
 */
export function azureSnpVerifier(rules: SnpRules, sources: readonly AmdEndorsementSource[]): Verifier {
  return {
    tee: 'az-snp-vtpm',
    verify: async (evidence, expectations) => {
      const parsed = parseAzureVtpmEvidence(evidence, 'vcek');
      const statement = parseVirtualTpm(parsed);
      const report = parseSnpReport(statement.hcl.hardwareReport);
      const endorsements = await endorse(
        report,
        [{ type: 'VCEK', bytes: parsed.hardware }],
        sources,
        rules,
        expectations.now,
      );
      const hardware = { reportType: snpReportType, reportData: report.reportData };
      return {
        verdict: allOf('az-snp-vtpm evidence', [
          verifySnpReport(report, endorsements, rules, { now: expectations.now }),
          ...checkVirtualTpm(statement, hardware, expectations),
        ]),
        claims: { ...azureSnpClaims(snpClaims(report, endorsements)), ...virtualTpmClaims(statement) },
      };
    },
  };
}

/** Upstream has every value as text here, the measurement in base64, and no chip id. */
function azureSnpClaims(claims: JsonObject): JsonObject {
  const { sealpod, chip_id: chipId, measurement, report_data: _report, init_data: _host, ...flags } = claims;
  return {
    ...Object.fromEntries(Object.entries(flags).map(([name, value]) => [name, String(value)])),
    measurement: Buffer.from(String(measurement), 'hex').toString('base64'),
    sealpod: { ...(sealpod as JsonObject), chip_id: chipId ?? null },
  };
}
