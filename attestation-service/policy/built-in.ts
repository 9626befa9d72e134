import { readFileSync } from 'node:fs';

/**
 * The policy that admits simulated TPMs. A development machine stores it as `default_cpu`, by name and by its operator's
 * own act; as it comes, nothing selects it.
 */
export const simulatedTpmPolicy = read('simulated-tpm.rego');

/**
 * Policies that come with the service, by id `<policy>_<class>`. Stored at start unless an operator changed or deleted them.
 *
 * `default` affirms only where every component is known. `trustee` says what upstream's service says; nothing selects it but
 * a request by name, or an operator who stores its text under `default`.
 */
export const builtInPolicies: Readonly<Record<string, string>> = {
  default_cpu: read('default-cpu.rego'),
  default_dcu: read('default-dcu.rego'),
  default_gpu: read('default-gpu.rego'),
  'default_nvidia-dpu': read('default-nvidia-dpu.rego'),
  default_ppcie: read('default-ppcie.rego'),
  default_switch: read('default-switch.rego'),
  'simulated-tpm_cpu': simulatedTpmPolicy,
  trustee_cpu: read('trustee-cpu.rego'),
  trustee_gpu: read('trustee-gpu.rego'),
  trustee_ppcie: read('trustee-ppcie.rego'),
  trustee_switch: read('trustee-switch.rego'),
};

function read(name: string): string {
  return readFileSync(new URL(name, import.meta.url), 'utf8');
}
