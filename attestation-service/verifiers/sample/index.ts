import { asJsonObject, decodeBase64, stringMember } from '@sealpod/protocol/json';
import { allOf, check } from '../check.ts';
import type { Verifier } from '../verifier.ts';

/**
 * The verifier of TEE `sample`: evidence that anybody can make. For tests of the protocol only, and enabled only where
 * the configuration says so; claims are the constants of upstream's sample.
 */
export function sampleVerifier(): Verifier {
  return {
    tee: 'sample',
    verify: (evidence, { reportData, initDataDigest }) => {
      const root = asJsonObject(evidence, 'sample evidence', 'EV_FORMAT');
      const reported = stringMember(root, 'report_data', 'EV_FORMAT');
      const bytes = decodeBase64(reported, { what: 'report_data', maxBytes: 1024, code: 'EV_FORMAT' });
      return {
        verdict: allOf('sample evidence, which proves nothing', [
          check('report data', reportData === undefined || bytes.equals(reportData), 'EV_BINDING_MISMATCH', {
            expected: reportData?.toString('hex') ?? '',
            actual: bytes.toString('hex'),
            source: 'digest of nonce and tee-pubkey',
          }),
        ]),
        claims: {
          svn: stringMember(root, 'svn', 'EV_FORMAT'),
          report_data: reported,
          launch_digest: 'abcde',
          platform_version: { major: 1, minor: 4 },
          debug: false,
          ...(initDataDigest === undefined ? {} : { init_data: initDataDigest.toString('base64') }),
        },
      };
    },
  };
}
