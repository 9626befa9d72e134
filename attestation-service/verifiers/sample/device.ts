import { asJsonObject, decodeBase64, stringMember } from '@sealpod/protocol/json';
import { allOf, check } from '../check.ts';
import type { Verifier } from '../verifier.ts';

/**
 * The verifier of TEE `sampledevice`: a device that anybody can make up. For tests of the protocol only, and enabled only where
 * the configuration says so; claims are upstream's, and the verdict says that nothing was proved.
 */
export function sampleDeviceVerifier(): Verifier {
  return {
    tee: 'sampledevice',
    verify: (evidence, { reportData, initDataDigest }) => {
      const root = asJsonObject(evidence, 'sampledevice evidence', 'EV_FORMAT');
      const reported = stringMember(root, 'report_data', 'EV_FORMAT');
      const bytes = decodeBase64(reported, { what: 'report_data', maxBytes: 1024, code: 'EV_FORMAT' });
      return {
        verdict: allOf('sampledevice evidence, which proves nothing', [
          check('report data', reportData === undefined || bytes.equals(reportData), 'EV_BINDING_MISMATCH', {
            expected: reportData?.toString('hex') ?? '',
            actual: bytes.toString('hex'),
            source: 'digest of nonce and tee-pubkey',
          }),
          check('initdata', initDataDigest === undefined, 'INITDATA_DIGEST', {
            expected: 'evidence that binds the initdata',
            actual: 'nothing in this evidence does',
          }),
        ]),
        claims: {
          svn: stringMember(root, 'svn', 'EV_FORMAT'),
          report_data: reported,
        },
      };
    },
  };
}
