import type { KbsClient } from '@sealpod/kbs-client';
import { registerReferenceValues } from '../commands/reference-value.ts';
import type { EnvironmentOptions } from './environment.ts';
import type { MeasuredImage } from './pod-vm-image.ts';

/**
 * Tells the key broker what to expect in this environment: the measurements of the pod VM image, and the attestation
 * policy that admits a simulated TPM, and clones of a template, by name. Without the latter no guest of this machine would ever be trusted.
 */
export async function enrolEnvironment(
  client: KbsClient,
  image: MeasuredImage,
  { template }: EnvironmentOptions,
): Promise<void> {
  const { referenceValues } = image;
  const { tpm_command_line: commandLine = [] } = referenceValues.reference_values;
  await registerReferenceValues(client, {
    ...referenceValues,
    reference_values: {
      ...referenceValues.reference_values,
      // None: what an earlier start with templates left is not accepted any more.
      tpm_template_command_line: template ? commandLine : [],
    },
  });
  const { policy } = (await client.get('/admin/v1/policies/attestation/simulated-tpm_cpu')) as {
    readonly policy: string;
  };
  await client.put('/admin/v1/policies/attestation/default_cpu', policy, 'text/plain');
}
