import {
  type AttestationService,
  connectAttestationService,
  createAttestationService,
} from '@sealpod/attestation-service';
import type { RegoEngine } from '@sealpod/rego';
import type { Storage } from '@sealpod/storage';
import type { AttestationServiceConfig } from './attestation-config.ts';
import { readKeySet } from './key-set.ts';

/**
 * Opens what the configuration names. In process it keeps its keys, policies and reference values in `storage`, and
 * evaluates with the key broker's `rego`.
 */
export async function openAttestationService(
  config: AttestationServiceConfig,
  { storage, rego, now }: { readonly storage: Storage; readonly rego: RegoEngine; readonly now: () => number },
): Promise<AttestationService> {
  if (config.type === 'grpc') {
    const { address, tls, adminSecret, timeoutMs, keys } = config;
    return connectAttestationService({
      address,
      timeoutMs,
      jwks: () => readKeySet(keys, { certificates: tls?.certificates, timeoutMs }),
      ...(tls === undefined ? {} : { tls }),
      ...(adminSecret === undefined ? {} : { adminSecret }),
    });
  }
  return createAttestationService({ ...config, now: () => new Date(now()) }, { storage, rego });
}
