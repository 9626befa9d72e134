import type { KbsClient } from '@sealpod/kbs-client';
import { registerReferenceValues } from '../commands/reference-value.ts';
import type { EnvironmentOptions } from './environment.ts';
import type { MeasuredImage } from './pod-vm-image.ts';

/**
 * Tells the key broker what to expect in this environment: the measurements of the pod VM image, and the attestation
 * policy that admits a simulated TPM by name, and a clone of a template where its command line is named as one. Without the
 * policy no guest of this machine would ever be trusted.
 */
export async function enrolEnvironment(
  client: KbsClient,
  image: MeasuredImage,
  { template }: EnvironmentOptions,
): Promise<void> {
  const { referenceValues } = image;
  const measured = referenceValues.reference_values;
  const named = template ? { tpm_template_command_line: measured['tpm_command_line'] } : {};
  await registerReferenceValues(client, { ...referenceValues, reference_values: { ...measured, ...named } });
  const { policy } = (await client.get('/admin/v1/policies/attestation/simulated-tpm_cpu')) as {
    readonly policy: string;
  };
  await client.put('/admin/v1/policies/attestation/default_cpu', policy, 'text/plain');
}
