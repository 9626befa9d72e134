import { readFileSync } from 'node:fs';

/**
 * The policy that admits simulated TPMs. A development machine stores it as `default_cpu`, by name and by its operator's
 * own act; as it comes, nothing selects it.
 */
export const simulatedTpmPolicy = read('simulated-tpm.rego');

/** Policies that come with the service, by id `<policy>_<class>`. Stored at start unless an operator changed or deleted them. */
export const builtInPolicies: Readonly<Record<string, string>> = {
  default_cpu: read('default-cpu.rego'),
  default_dcu: read('default-dcu.rego'),
  'simulated-tpm_cpu': simulatedTpmPolicy,
};

function read(name: string): string {
  return readFileSync(new URL(name, import.meta.url), 'utf8');
}
