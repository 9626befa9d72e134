import { type AttestationService, createAttestationService } from '@sealpod/attestation-service';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Storage } from '@sealpod/storage';
import type { AttestationServiceConfig } from './attestation-config.ts';

/** Opens what the configuration names. In process it keeps its keys, policies and reference values in `storage`. */
export async function openAttestationService(
  config: AttestationServiceConfig,
  storage: Storage,
  now: () => number,
): Promise<AttestationService> {
  if (config.type === 'grpc') {
    throw new SealpodError('UNSUPPORTED', 'an attestation service over gRPC is not part of this build');
  }
  const { tpm, sample, token } = config;
  const options = { sample, token, now: () => new Date(now()) };
  return createAttestationService(tpm === undefined ? options : { ...options, tpm }, { storage });
}
