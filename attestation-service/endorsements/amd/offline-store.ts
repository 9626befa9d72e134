import { join } from 'node:path';
import { readOptionalFile } from '../optional-file.ts';
import { type AmdEndorsementSource, chipName, tcbDigits } from './source.ts';

const maxBytes = 1024 * 1024;

/**
 * Certificates in a folder, named as upstream's offline store has them (trustee: OfflineStore):
 * `vcek/<chip id>/bl07_tee00_snp08_ucode72[_fmc01]_vcek.der`, else `vcek/<chip id>/vcek.der`; and besides them the
 * revocation lists as `crl/<generation>.crl`.
 */
export function offlineStore(folder: string): AmdEndorsementSource {
  return {
    name: `offline store ${folder}`,
    async chipKey({ generation, chipId, tcb }) {
      const { fmc, bl, tee, snp, ucode } = tcbDigits(tcb);
      const versions = `bl${bl}_tee${tee}_snp${snp}_ucode${ucode}${fmc === undefined ? '' : `_fmc${fmc}`}_vcek.der`;
      // Upstream names the folder by all 64 bytes, also for Turin.
      const names = new Set([chipId.toString('hex'), chipName(generation, chipId)]);
      for (const name of names)
        for (const file of [versions, 'vcek.der']) {
          const found = await readOptionalFile(join(folder, 'vcek', name, file), maxBytes);
          if (found !== undefined) return found;
        }
      return undefined;
    },
    revocationList: (generation) => readOptionalFile(join(folder, 'crl', `${generation}.crl`), maxBytes),
  };
}
