import type { KbsClient } from '@sealpod/kbs-client';
import { registerReferenceValues } from '../commands/reference-value.ts';
import type { MeasuredImage } from './pod-vm-image.ts';

/**
 * Tells the key broker what to expect in this environment: the measurements of the pod VM image, and the attestation
 * policy that admits a simulated TPM by name. Without the latter no guest of this machine would ever be trusted.
 */
export async function enrolEnvironment(client: KbsClient, image: MeasuredImage): Promise<void> {
  await registerReferenceValues(client, image.referenceValues);
  const { policy } = (await client.get('/admin/v1/policies/attestation/simulated-tpm_cpu')) as {
    readonly policy: string;
  };
  await client.put('/admin/v1/policies/attestation/default_cpu', policy, 'text/plain');
}
