import type { AdministratorIdentity } from '@sealpod/attestation-service/service';
import type { Administrator } from './authenticator.ts';

/** Who an administrator is to the attestation service: the key tells them apart, not the name they gave themselves. */
export function identityOf({ subject, keyId }: Administrator): AdministratorIdentity {
  return { subject, key: keyId };
}
