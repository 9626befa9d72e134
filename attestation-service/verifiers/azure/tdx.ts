import { parseAzureVtpmEvidence } from '@sealpod/protocol/azure';
import { parseQuote } from '@sealpod/protocol/dcap';
import { allOf } from '../check.ts';
import type { DcapRules } from '../dcap/endorse.ts';
import { verifyDcapQuote } from '../dcap/verifier.ts';
import { tdQuoteClaims } from '../tdx/claims.ts';
import { tdReportOf } from '../tdx/index.ts';
import type { Verifier } from '../verifier.ts';
import { checkVirtualTpm, parseVirtualTpm, virtualTpmClaims } from './virtual-tpm.ts';

const tdReportType = 4;

/**
 * The verifier of TEE `az-tdx-vtpm`: the quote of a TD whose report data hold the virtual TPM's key, and a quote of that
 * TPM.
 */
export function azureTdxVerifier(rules: DcapRules): Verifier {
  return {
    tee: 'az-tdx-vtpm',
    verify: async (evidence, expectations) => {
      const parsed = parseAzureVtpmEvidence(evidence, 'td_quote');
      const statement = parseVirtualTpm(parsed);
      const quote = parseQuote(parsed.hardware);
      const report = tdReportOf(quote);
      const { verdicts, claims } = await verifyDcapQuote(quote, rules, expectations.now);
      const hardware = { reportType: tdReportType, reportData: report.reportData };
      return {
        verdict: allOf('az-tdx-vtpm evidence', [...verdicts, ...checkVirtualTpm(statement, hardware, expectations)]),
        claims: { ...tdQuoteClaims(quote, report), ...claims, ...virtualTpmClaims(statement) },
      };
    },
  };
}
