import { SealpodError } from '@sealpod/protocol/errors';
import type { RestFeatures } from '../rest/rest-server.ts';

/** Switches of the kernel command line, which is measured with the kernel. */
export interface KernelSwitches {
  /** `sealpod.attester=`: `tpm` unless the image was built for protocol tests. */
  readonly attester: 'tpm' | 'sample';
  /** `agent.guest_components_rest_api=` (Kata's name): `resource` by default; `none` serves no REST API. */
  readonly restFeatures: RestFeatures | 'none';
  /** `sealpod.template=1`: the machine is a clone of one that was booted before it knew of a pod. */
  readonly template: boolean;
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
    template: oneOf('sealpod.template', value('sealpod.template'), ['1', '0'], '0') === '1',
  };
}

/**
 * Holds what init did against the measured command line: a machine that was woken from a template without saying so, or
 * that says so and was not woken, does not go on.
 *
 * @param woken `SEALPOD_WOKEN` of the environment: seconds of the kernel's uptime at which init was woken
 * @throws SealpodError USAGE
 */
export function requireWoken({ template }: KernelSwitches, woken: string | undefined): void {
  if (template === (woken !== undefined)) return;
  throw new SealpodError('USAGE', 'how the machine was started is not what its command line says', {
    expected: template ? 'woken from a template' : 'booted',
    actual: template ? 'booted' : 'woken from a template',
    fix: 'start the image as its builder meant it: only one with sealpod.template=1 has a template',
  });
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
