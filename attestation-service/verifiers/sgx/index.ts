import { type EnclaveReport, parseQuote, parseSgxEvidence, type Quote } from '@sealpod/protocol/dcap';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { allOf, check } from '../check.ts';
import type { DcapRules } from '../dcap/endorse.ts';
import { verifyDcapQuote } from '../dcap/verifier.ts';
import type { Expectations, Verifier } from '../verifier.ts';

/**
 * The verifier of TEE `sgx`: the quote of an enclave with Intel's collateral. An enclave in debug mode verifies; the default
 * policy sees its attributes.
 */
export function sgxVerifier(rules: DcapRules): Verifier {
  return {
    tee: 'sgx',
    verify: async (evidence, expectations) => {
      const quote = parseQuote(parseSgxEvidence(evidence));
      const { body } = quote;
      if (body.tee !== 'sgx')
        throw new SealpodError('EV_FORMAT', 'the quote is not of an enclave', {
          expected: 'TEE type 0',
          actual: 'a TD',
        });
      const { verdicts, claims } = await verifyDcapQuote(quote, rules, expectations.now);
      return {
        verdict: allOf('sgx evidence', [...verdicts, ...checkBindings(body.report, expectations)]),
        claims: { ...enclaveClaims(quote, body.report), ...claims },
      };
    },
  };
}

function checkBindings(
  { reportData: actual, configId }: EnclaveReport,
  { reportData, initDataDigest }: Expectations,
): Verdict[] {
  const expected = reportData && regularise(reportData, 64);
  const initdata = initDataDigest && regularise(initDataDigest, 64);
  return [
    check('report data', expected?.equals(actual) ?? false, 'EV_BINDING_MISMATCH', {
      expected: expected?.toString('hex') ?? 'runtime data, which this TEE requires',
      actual: actual.toString('hex'),
      source: 'digest of nonce and tee-pubkey',
    }),
    ...(initdata === undefined
      ? []
      : [
          check('initdata', initdata.equals(configId), 'INITDATA_DIGEST', {
            expected: initdata.toString('hex'),
            actual: configId.toString('hex'),
            source: 'CONFIGID',
          }),
        ]),
  ];
}

/** Claims as upstream has them: fields in hexadecimal, in the order of the wire. */
function enclaveClaims({ header: { raw } }: Quote, report: EnclaveReport): JsonObject {
  const header = (from: number, to: number): string => raw.subarray(from, to).toString('hex');
  const body = (from: number, to: number): string => report.raw.subarray(from, to).toString('hex');
  return {
    header: {
      version: header(0, 2),
      att_key_type: header(2, 4),
      att_key_data_0: header(4, 8),
      qe_svn: header(8, 10),
      pce_svn: header(10, 12),
      vendor_id: header(12, 28),
      user_data: header(28, 48),
    },
    body: {
      cpu_svn: body(0, 16),
      misc_select: body(16, 20),
      reserved1: body(20, 32),
      isv_ext_prod_id: body(32, 48),
      'attributes.flags': body(48, 56),
      'attributes.xfrm': body(56, 64),
      mr_enclave: body(64, 96),
      reserved2: body(96, 128),
      mr_signer: body(128, 160),
      reserved3: body(160, 192),
      config_id: body(192, 256),
      isv_prod_id: body(256, 258),
      isv_svn: body(258, 260),
      config_svn: body(260, 262),
      reserved4: body(262, 304),
      isv_family_id: body(304, 320),
      report_data: body(320, 384),
    },
    report_data: report.reportData.toString('hex'),
    init_data: report.configId.toString('hex'),
  };
}
