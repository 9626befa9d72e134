/**
 * Genuine evidence of every TEE, minted, and what is changed about it: `docs/reference/refusals.md` is made of it.
 *
 * @module
 */
import { azureSnpMutations, snpMutations } from './amd.ts';
import { ccaMutations } from './arm.ts';
import { csvMutations, dcuMutations } from './hygon.ts';
import { seMutations } from './ibm.ts';
import { azureTdxMutations, sgxMutations, tdxMutations } from './intel.ts';
import type { MutatedTee } from './mutation.ts';
import { dpuMutations, nvidiaMutations } from './nvidia.ts';
import { nitroMutations, sampleDeviceMutations, sampleMutations } from './others.ts';
import { tpmMutations } from './tpm.ts';

export { type MutatedTee, refusalsOf } from './mutation.ts';

/** By the TEE's name on the wire. `nvidiadpu` is another name of `nvidia-dpu`, with the same verifier. */
export const mutations: Readonly<Record<string, () => Promise<MutatedTee>>> = {
  snp: snpMutations,
  'az-snp-vtpm': azureSnpMutations,
  tdx: tdxMutations,
  sgx: sgxMutations,
  'az-tdx-vtpm': azureTdxMutations,
  tpm: tpmMutations,
  cca: ccaMutations,
  csv: csvMutations,
  hygondcu: dcuMutations,
  se: seMutations,
  nvidia: nvidiaMutations,
  'nvidia-dpu': () => dpuMutations('nvidia-dpu'),
  nvidiadpu: () => dpuMutations('nvidiadpu'),
  'aws-nitro': nitroMutations,
  sample: sampleMutations,
  sampledevice: sampleDeviceMutations,
};
