import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { removeConfiguration } from '../installer/configure.ts';
import type { SealedPod } from './containerd.ts';
import type { NodeInstallation } from './installation.ts';
import type { Log } from './log.ts';
import type { KubernetesNode } from './node.ts';
import { removeReleases } from './placement.ts';

export interface UninstallOptions {
  /** End sealed pods that still run. Without it they make uninstalling fail. */
  readonly force: boolean;
  /** How long to wait for sealed pods to end by themselves, in milliseconds. */
  readonly waitMs: number;
}

/**
 * Takes everything off a node that the agent placed there: label and capacity, containerd's fragment, snapshotter and
 * adaptor with what machines are left, programs, state. May be repeated, and then does nothing.
 *
 * @throws SealpodError UNSUPPORTED while sealed pods run, with nothing but the label taken away; else what a step failed with
 */
export async function uninstall(
  installation: NodeInstallation,
  node: Pick<KubernetesNode, 'withdraw'>,
  options: UninstallOptions,
  log: Log,
): Promise<void> {
  const { containerd, config } = installation;
  // First, so that no new pod comes.
  await node.withdraw();
  await endPods(installation, options, log);
  if (await containerd.remove()) log.info({}, 'containerd restarted without the runtime');
  await removeFromHost(installation);
  log.info({ prefix: config.prefix }, 'everything was removed from the node');
}

/** Ends snapshotter, adaptor and machines, and removes programs, configuration and state. containerd is left as it is. */
export async function removeFromHost(installation: NodeInstallation): Promise<void> {
  const { services, host, config, layout } = installation;
  const { snapshotter, adaptor } = installation.servicesOf(undefined);
  removeConfiguration(layout.runtime);
  await services.remove(adaptor);
  await removeMachines(installation, adaptor.command);
  await services.remove(snapshotter);
  removeReleases(host.root, config.prefix);
  installation.removeState();
  await host.removeServiceGroup();
}

async function endPods(installation: NodeInstallation, options: UninstallOptions, log: Log): Promise<void> {
  const deadline = Date.now() + options.waitMs;
  let pods = await podsOf(installation);
  while (pods.some(({ running }) => running) && Date.now() < deadline) {
    await delay(1000);
    pods = await podsOf(installation);
  }
  const running = pods.filter((pod) => pod.running);
  if (running.length > 0 && !options.force) {
    throw new SealpodError('UNSUPPORTED', `${running.length} sealed pods run on this node`, {
      expected: 'none: without the runtime they cannot be stopped any more',
      actual: running
        .map(({ namespace, name }) => `${namespace}/${name}`)
        .slice(0, 10)
        .join(', '),
      fix: 'delete or drain them, or uninstall with --force, which ends them',
    });
  }
  // Also those that ended: containerd could not remove them once it does not know their runtime.
  for (const pod of pods) {
    log.info({ pod: pod.name, namespace: pod.namespace }, 'pod ended');
    await installation.containerd.removePod(pod.id);
  }
}

/** None where containerd does not answer: then it is configured and restarted next, and says so if it cannot. */
async function podsOf(installation: NodeInstallation): Promise<SealedPod[]> {
  try {
    return await installation.containerd.pods();
  } catch (error) {
    if (installation.podFolders().length === 0) return [];
    throw new SealpodError('PREREQUISITE', 'containerd does not say which pods run', {
      cause: error,
      actual: asSealpodError(error).message,
      fix: 'start containerd on the node, then uninstall again',
    });
  }
}

/** Machines that no pod knows any more, as after a forced end. */
async function removeMachines(installation: NodeInstallation, command: readonly string[]): Promise<void> {
  if (installation.podFolders().length === 0) return;
  const { host, layout } = installation;
  await host.run(['test', '-x', join(layout.library, 'node')]);
  await host.run([...command, '--remove-all'], 60_000);
}
