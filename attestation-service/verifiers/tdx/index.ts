import { parseQuote, parseTdxEvidence, type Quote, type TdReport } from '@sealpod/protocol/dcap';
import { SealpodError } from '@sealpod/protocol/errors';
import { regularise } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { allOf, check } from '../check.ts';
import type { DcapRules } from '../dcap/endorse.ts';
import { verifyDcapQuote } from '../dcap/verifier.ts';
import type { Expectations, Verifier } from '../verifier.ts';
import { tdQuoteClaims } from './claims.ts';
import { checkRegisters, eventClaims, parseCcel } from './event-log.ts';

/**
 * The verifier of TEE `tdx`: the quote of a TD with Intel's collateral, and the event log where there is one. A TD that can
 * be debugged verifies, and says so in its claims: policies decide.
 */
export function tdxVerifier(rules: DcapRules): Verifier {
  return {
    tee: 'tdx',
    verify: async (evidence, expectations) => {
      const parsed = parseTdxEvidence(evidence);
      const quote = parseQuote(parsed.quote);
      const report = tdReportOf(quote);
      const log = parsed.eventLog && parseCcel(parsed.eventLog);
      const { verdicts, claims } = await verifyDcapQuote(quote, rules, expectations.now);
      return {
        verdict: allOf('tdx evidence', [
          ...verdicts,
          checkReportData(report, expectations),
          ...checkInitdata(report, expectations),
          ...(log === undefined ? [] : [checkRegisters(report, log)]),
        ]),
        claims: {
          ...tdQuoteClaims(quote, report),
          ...(log === undefined ? {} : eventClaims(log)),
          ...claims,
          report_data: report.reportData.toString('hex'),
          init_data: report.mrConfigId.toString('hex'),
        },
      };
    },
  };
}

/** @throws SealpodError EV_FORMAT for a quote of an enclave */
export function tdReportOf({ body }: Quote): TdReport {
  if (body.tee === 'tdx') return body.report;
  throw new SealpodError('EV_FORMAT', 'the quote is not of a TD', {
    expected: 'TEE type 0x81',
    actual: 'an SGX enclave',
  });
}

function checkReportData({ reportData: actual }: TdReport, { reportData }: Expectations): Verdict {
  const expected = reportData && regularise(reportData, 64);
  return check('report data', expected?.equals(actual) ?? false, 'EV_BINDING_MISMATCH', {
    expected: expected?.toString('hex') ?? 'runtime data, which this TEE requires',
    actual: actual.toString('hex'),
    source: 'digest of nonce and tee-pubkey',
  });
}

function checkInitdata({ mrConfigId }: TdReport, { initDataDigest }: Expectations): Verdict[] {
  if (initDataDigest === undefined) return [];
  const expected = regularise(initDataDigest, 48);
  return [
    check('initdata', expected.equals(mrConfigId), 'INITDATA_DIGEST', {
      expected: expected.toString('hex'),
      actual: mrConfigId.toString('hex'),
      source: 'MRCONFIGID',
    }),
  ];
}
