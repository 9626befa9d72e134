import type { AttestationService } from '@sealpod/attestation-service/service';
import { SealpodError } from '@sealpod/protocol/errors';
import type { RegoEngine } from '@sealpod/rego';
import type { Storage } from '@sealpod/storage';
import type { KbsConfig } from './config.ts';

/** Opens what the configuration names: an attestation service in this process, or a client to one behind gRPC. */
export async function openAttestationService(
  config: KbsConfig,
  _storage: Storage,
  _rego: RegoEngine,
): Promise<AttestationService> {
  throw new SealpodError(
    'UNSUPPORTED',
    `the attestation service ${config.attestationService.type} is not part of this build`,
  );
}
