import { asSealpodError } from '@sealpod/protocol/errors';
import { describeEvent, type EventLog, parseEventLog, replay } from '@sealpod/protocol/event-log';
import {
  type CsvEvidence,
  type CsvReport,
  type HygonCertificate,
  hygonSm2Signature,
  hygonUsage,
  parseCsvEvidence,
} from '@sealpod/protocol/hygon';
import { regularise } from '@sealpod/protocol/rcar';
import { Algorithm } from '@sealpod/protocol/tpm';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { HygonEndorsementSource } from '../../endorsements/hygon/sources.ts';
import { allOf, check } from '../check.ts';
import { checkUnboundInitdata } from '../unbound-initdata.ts';
import type { Expectations, Verifier } from '../verifier.ts';
import { checkChipChain, checkIssued, fetchChipChain, missingChain } from './chain.ts';
import { csvClaims } from './claims.ts';
import { verifySm2 } from './sm2.ts';

/** The verifier of TEE `csv`. `sources` are asked in their order for what the evidence does not bring. */
export function csvVerifier(root: HygonCertificate, sources: readonly HygonEndorsementSource[]): Verifier {
  return {
    tee: 'csv',
    verify: async (value, expectations) => {
      const evidence = parseCsvEvidence(value);
      const log =
        evidence.report.version === 2 && evidence.eventLog !== undefined ? parseLog(evidence.eventLog) : undefined;
      const certificates =
        evidence.chipChain === undefined
          ? await fetchChipChain(evidence.serialNumber, sources)
          : { chain: evidence.chipChain, source: 'evidence' };
      const chain =
        'problem' in certificates
          ? [missingChain(certificates.problem)]
          : [
              ...checkChipChain(certificates.chain, root),
              checkIssued('platform key (PEK)', evidence.pek, hygonUsage.pek, certificates.chain.cek),
            ];
      const verdict = allOf('csv evidence', [
        ...chain,
        ...checkReport(evidence, expectations),
        ...(log === undefined ? [] : [checkLog(log, evidence.report)]),
        checkUnboundInitdata(expectations.initDataDigest),
      ]);
      const source = 'problem' in certificates ? null : certificates.source;
      return {
        verdict,
        claims: csvClaims(evidence, source, log?.events.filter(({ register }) => register > 0).map(describeEvent)),
      };
    },
  };
}

/** The log as it lies in the table, or as the guest's agent wrote it. @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
function parseLog(bytes: Buffer): EventLog {
  return parseEventLog(bytes, { padded: true, unsignedSpecId: true });
}

function checkReport({ report, pek }: CsvEvidence, { reportData }: Expectations): Verdict[] {
  const { signatureUsage, signatureAlgorithm, signed, signature } = report;
  const field = reportData && regularise(reportData, 64);
  return [
    check(
      'signing key of the report',
      signatureUsage === hygonUsage.pek && signatureAlgorithm === hygonSm2Signature,
      'EV_SIGNATURE',
      {
        expected: `usage 0x${hygonUsage.pek.toString(16)}, algorithm ${hygonSm2Signature}`,
        actual: `usage 0x${signatureUsage.toString(16)}, algorithm ${signatureAlgorithm}`,
      },
    ),
    check('report signature', verifySm2(pek.key, signed, signature), 'EV_SIGNATURE', {
      expected: 'SM2 with SM3 by the platform key',
      actual: 'it does not verify',
    }),
    check('report data', field === undefined || field.equals(report.reportData), 'EV_BINDING_MISMATCH', {
      expected: field?.toString('hex') ?? '',
      actual: report.reportData.toString('hex'),
      source: 'digest of nonce and tee-pubkey',
    }),
  ];
}

/**
 * The log replays to registers 1 to 4. Register 0 is the launch digest, which is measured before any event, so that events of
 * it are told by nobody: they are no part of the claims.
 */
function checkLog({ events }: EventLog, { extension }: CsvReport): Verdict {
  const name = 'event log replay';
  try {
    const replayed = replay(events, Algorithm.sm3);
    const stray = [...replayed.keys()].find((register) => register > 4);
    const zeros = Buffer.alloc(32);
    return allOf(name, [
      check('registers', stray === undefined, 'EV_EVENTLOG_REPLAY', {
        expected: '0 to 4',
        actual: `${stray}`,
      }),
      ...[1, 2, 3, 4].map((register) => {
        const [actual, expected] = [replayed.get(register) ?? zeros, extension?.rtmrs[register] ?? zeros];
        return check(`RTMR ${register}`, actual.equals(expected), 'EV_EVENTLOG_REPLAY', {
          expected: expected.toString('hex'),
          actual: actual.toString('hex'),
          source: 'report',
        });
      }),
    ]);
  } catch (thrown) {
    const { code, message } = asSealpodError(thrown, 'EV_EVENTLOG_REPLAY');
    return { check: name, code, actual: message };
  }
}
