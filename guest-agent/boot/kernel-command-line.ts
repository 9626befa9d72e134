import { SealpodError } from '@sealpod/protocol/errors';
import type { RestFeatures } from '../rest/rest-server.ts';

/** Switches of the kernel command line, which is measured with the kernel. */
export interface KernelSwitches {
  /** `sealpod.attester=`: `tpm` unless the image was built for protocol tests. */
  readonly attester: 'tpm' | 'sample';
  /** `agent.guest_components_rest_api=` (Kata's name): `resource` by default; `none` serves no REST API. */
  readonly restFeatures: RestFeatures | 'none';
}

/**
 * Reads the switches. An unknown value refuses: a switch that was meant to restrict must not be dropped.
 *
 * @throws SealpodError USAGE
 */
export function parseKernelSwitches(commandLine: string): KernelSwitches {
  const value = (name: string): string | undefined =>
    commandLine
      .split(/\s+/)
      .findLast((word) => word.startsWith(`${name}=`))
      ?.slice(name.length + 1);
  return {
    attester: oneOf('sealpod.attester', value('sealpod.attester'), ['tpm', 'sample'], 'tpm'),
    restFeatures: oneOf(
      'agent.guest_components_rest_api',
      value('agent.guest_components_rest_api'),
      ['resource', 'attestation', 'all', 'none'],
      'resource',
    ),
  };
}

function oneOf<Value extends string>(
  name: string,
  text: string | undefined,
  values: readonly Value[],
  unset: Value,
): Value {
  if (text === undefined) return unset;
  const found = values.find((value) => value === text);
  if (found === undefined) {
    throw new SealpodError('USAGE', `kernel switch ${name} has an unknown value`, {
      expected: values.join(', '),
      actual: text.slice(0, 64),
    });
  }
  return found;
}
