import { type CollateralHttpOptions, getCollateral } from '../http-client.ts';
import { type AmdEndorsementSource, chipName, tcbDigits } from './source.ts';

const defaultUrl = 'https://kdsintf.amd.com';

/**
 * AMD's key distribution service (VCEK certificate and KDS interface specification, chapter 4), or a mirror of it.
 * It has no certificates of VLEKs: these come with the evidence.
 */
export function keyDistributionService(url = defaultUrl, options: CollateralHttpOptions = {}): AmdEndorsementSource {
  const base = url.replace(/\/+$/, '');
  return {
    name: `key distribution service ${base}`,
    async chipKey({ generation, chipId, tcb }) {
      const versions = Object.entries(tcbDigits(tcb)).map(([part, digits]) => `${part}SPL=${digits}`);
      const answer = await getCollateral(
        `${base}/vcek/v1/${generation}/${chipName(generation, chipId)}?${versions.join('&')}`,
        options,
      );
      return answer?.body;
    },
    async revocationList(generation) {
      return (await getCollateral(`${base}/vcek/v1/${generation}/crl`, options))?.body;
    },
  };
}
