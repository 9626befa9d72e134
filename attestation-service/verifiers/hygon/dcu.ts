import {
  type DcuReport,
  type HygonCertificate,
  hygonSm2Signature,
  hygonUsage,
  parseDcuEvidence,
} from '@sealpod/protocol/hygon';
import { regularise } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { HygonEndorsementSource } from '../../endorsements/hygon/sources.ts';
import { allOf, check } from '../check.ts';
import { checkUnboundInitdata } from '../unbound-initdata.ts';
import type { Expectations, Verifier } from '../verifier.ts';
import { checkChipChain, fetchChipChain, missingChain } from './chain.ts';
import { dcuClaims } from './claims.ts';
import { verifySm2 } from './sm2.ts';

/** The verifier of TEE `hygondcu`: accelerators, each a submodule of class `dcu`. */
export function dcuVerifier(root: HygonCertificate, sources: readonly HygonEndorsementSource[]): Verifier {
  return {
    tee: 'hygondcu',
    verify: async (evidence, expectations) => {
      const reports = parseDcuEvidence(evidence);
      const verdicts: Verdict[] = [];
      for (const report of reports) verdicts.push(await verifyReport(report, root, sources, expectations));
      return {
        verdict: allOf('hygondcu evidence', [
          ...verdicts,
          checkDistinct(reports),
          checkUnboundInitdata(expectations.initDataDigest),
        ]),
        claims: {},
        submodules: reports.map((report) => ({ teeClass: 'dcu', claims: dcuClaims(report) })),
      };
    },
  };
}

async function verifyReport(
  report: DcuReport,
  root: HygonCertificate,
  sources: readonly HygonEndorsementSource[],
  { reportData }: Expectations,
): Promise<Verdict> {
  const certificates = await fetchChipChain(report.serialNumber, sources);
  const field = reportData && regularise(reportData, 64);
  return allOf(`accelerator ${report.serialNumber}`, [
    ...('problem' in certificates
      ? [missingChain(certificates.problem)]
      : [
          ...checkChipChain(certificates.chain, root),
          check(
            'report signature',
            verifySm2(certificates.chain.cek.key, report.signed, report.signature),
            'EV_SIGNATURE',
            {
              expected: 'SM2 with SM3 by the chip key',
              actual: 'it does not verify',
            },
          ),
        ]),
    check(
      'signing key of the report',
      report.signatureUsage === hygonUsage.cek && report.signatureAlgorithm === hygonSm2Signature,
      'EV_SIGNATURE',
      {
        expected: `usage 0x${hygonUsage.cek.toString(16)}, algorithm ${hygonSm2Signature}`,
        actual: `usage 0x${report.signatureUsage.toString(16)}, algorithm ${report.signatureAlgorithm}`,
      },
    ),
    // Upstream refuses reports that are bound to nothing; so does this.
    check('report data', field?.equals(report.userData) === true, 'EV_BINDING_MISMATCH', {
      expected: field?.toString('hex') ?? 'runtime data in the request',
      actual: report.userData.toString('hex'),
      source: 'digest of nonce and tee-pubkey',
    }),
  ]);
}

/** One accelerator must not stand for several. */
function checkDistinct(reports: readonly DcuReport[]): Verdict {
  const chips = reports.map(({ serialNumber }) => serialNumber);
  const twice = chips.find((chip, index) => chips.indexOf(chip) !== index);
  return check('distinct accelerators', twice === undefined, 'EV_PART_MIX', {
    expected: 'one report of each accelerator',
    actual: `several of ${twice}`,
  });
}
