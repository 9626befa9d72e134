import { SealpodError } from '@sealpod/protocol/errors';
import type { Storage } from '@sealpod/storage';
import type { AttestationServiceConfig } from '../config.ts';
import { nitroRoot } from '../endorsements/aws/certificates.ts';
import { SeenBefore } from '../endorsements/seen-before.ts';
import { azureSnpVerifier } from './azure/snp.ts';
import { azureTdxVerifier } from './azure/tdx.ts';
import { ccaPlatforms, ccaRules, ccaVerifier } from './cca/index.ts';
import { dcapRules } from './dcap/index.ts';
import { csvVerifier, dcuVerifier, hygonRoot, hygonSources } from './hygon/index.ts';
import { nitroVerifier } from './nitro/index.ts';
import { nvidiaVerifierOf } from './nvidia/index.ts';
import { dpuRules } from './nvidia-dpu/config.ts';
import { dpuVerifier } from './nvidia-dpu/index.ts';
import { sampleDeviceVerifier } from './sample/device.ts';
import { sampleVerifier } from './sample/index.ts';
import { seVerifier } from './se/index.ts';
import { readSeTrust } from './se/trust.ts';
import { sgxVerifier } from './sgx/index.ts';
import { amdSources, snpRules, snpVerifier } from './snp/index.ts';
import { tdxVerifier } from './tdx/index.ts';
import { tpmVerifier } from './tpm/index.ts';
import { trustAuthorityVerifiers } from './trust-authority/index.ts';
import type { Verifier } from './verifier.ts';

/** What verifiers share. */
export interface VerifierDependencies {
  /** Keeps collateral. */
  readonly storage: Storage;
  /** Authenticates challenges, so that any replica knows them again. */
  readonly challengeKey: Uint8Array;
  readonly now: () => Date;
}

/** The verifiers of a configuration by the TEE's name on the wire. @throws SealpodError USAGE for unusable trust anchors, or two verifiers of one TEE */
export function createVerifiers(
  config: AttestationServiceConfig,
  { storage, challengeKey, now }: VerifierDependencies,
): ReadonlyMap<string, Verifier> {
  const verifiers = new Map<string, Verifier>();
  const { tpm, snp, dcap, cca, csv, hygondcu, se, nvidia, nvidiaDpu, nitro } = config;
  if (tpm !== undefined) verifiers.set('tpm', tpmVerifier(tpm, challengeKey));
  if (snp !== undefined) {
    const rules = { ...snpRules(snp), seen: new SeenBefore(storage, 'amd') };
    const sources = amdSources(snp, storage, now);
    verifiers.set('snp', snpVerifier(rules, sources));
    verifiers.set('az-snp-vtpm', azureSnpVerifier(rules, sources));
  }
  if (dcap !== undefined) {
    const rules = dcapRules(dcap, storage, now);
    verifiers.set('tdx', tdxVerifier(rules));
    verifiers.set('sgx', sgxVerifier(rules));
    verifiers.set('az-tdx-vtpm', azureTdxVerifier(rules));
  }
  if (cca !== undefined) verifiers.set('cca', ccaVerifier(ccaRules(cca), ccaPlatforms(cca)));
  if (csv !== undefined) verifiers.set('csv', csvVerifier(hygonRoot, hygonSources(csv, storage, now)));
  if (hygondcu !== undefined) verifiers.set('hygondcu', dcuVerifier(hygonRoot, hygonSources(hygondcu, storage, now)));
  if (se !== undefined) verifiers.set('se', seVerifier(readSeTrust(se), challengeKey, now));
  if (nvidia !== undefined) verifiers.set('nvidia', nvidiaVerifierOf(nvidia, storage, now));
  if (nvidiaDpu !== undefined) {
    const rules = dpuRules(nvidiaDpu);
    for (const tee of ['nvidia-dpu', 'nvidiadpu'] as const) verifiers.set(tee, dpuVerifier(tee, rules));
  }
  if (nitro !== undefined)
    verifiers.set('aws-nitro', nitroVerifier({ root: nitroRoot, allowDebug: nitro.allowDebug ?? false }));
  if (config.sample === true) {
    verifiers.set('sample', sampleVerifier());
    verifiers.set('sampledevice', sampleDeviceVerifier());
  }
  for (const verifier of config.trustAuthority === undefined ? [] : trustAuthorityVerifiers(config.trustAuthority)) {
    if (verifiers.has(verifier.tee))
      throw new SealpodError('USAGE', `TEE ${verifier.tee} has two verifiers`, { fix: 'name it in one place only' });
    verifiers.set(verifier.tee, verifier);
  }
  return verifiers;
}
