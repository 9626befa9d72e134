import type { SandboxStatus } from '@sealpod/protocol/status';
import type { Command } from 'commander';
import { statusSocketBeside } from '../development/adaptor.ts';
import { readState, requireState } from '../development/state.ts';
import { layoutFor } from './context.ts';

/**
 * How pods started, oldest first: from the events of the cluster that `--kubeconfig` names, else from the adaptor of the
 * environment; where none runs, from the events of the cluster that the variable KUBECONFIG names. `name` chooses one pod, as `[NAMESPACE/]NAME`; `--namespace` those of one namespace.
 *
 * @throws SealpodError NOT_FOUND, HYPERVISOR where nobody can be asked
 */
export async function readStarts(command: Command, name?: string): Promise<readonly SandboxStatus[]> {
  const options = command.optsWithGlobals<{ kubeconfig?: string; namespace?: string }>();
  const [pod, namespace = options.namespace] = (name ?? '').split('/').reverse();
  // The client of Kubernetes takes a while to load, which other commands need not wait for.
  const { loadKubeConfig, readPodStarts, readSandboxes } = await import('@sealpod/runtimeclass/pod-events');
  const state = readState(layoutFor(command));
  const runs = state !== undefined && state.daemons.length > 0;
  if (options.kubeconfig !== undefined || (!runs && process.env['KUBECONFIG'] !== undefined)) {
    return readPodStarts(loadKubeConfig(options.kubeconfig), {
      ...(namespace === undefined ? {} : { namespace }),
      ...(pod ? { pod } : {}),
    });
  }
  const { adaptorSocket } = requireState(layoutFor(command));
  const sandboxes = adaptorSocket === undefined ? [] : await readSandboxes(statusSocketBeside(adaptorSocket));
  return sandboxes.filter(
    (one) => (!pod || one.pod.name === pod) && (namespace === undefined || one.pod.namespace === namespace),
  );
}
