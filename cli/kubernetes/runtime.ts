import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { allowPlainRegistry, type ClusterState, recordDaemon, restartContainerd } from '@sealpod/cluster';
import { startDaemon } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { installRuntime } from '@sealpod/runtimeclass/installer';
import { accepts } from '../development/containerd.ts';
import type { Layout } from '../development/layout.ts';
import type { EnvironmentState } from '../development/state.ts';
import { clusterDirectory, clusterRuntimeDirectory } from './layout.ts';

/**
 * Installs the runtime into a running cluster, as an operator does on a node: programs, containerd's fragment, the
 * snapshotter, a restart of containerd, the node's label and the RuntimeClass. Machines are those of the environment's
 * adaptor, and guests talk to its key broker and registry.
 *
 * @throws SealpodError NOT_FOUND where the environment has no adaptor; INTERNAL where a program does not start
 */
export async function installIntoCluster(
  layout: Layout,
  environment: EnvironmentState,
  cluster: ClusterState,
): Promise<void> {
  const directory = clusterDirectory(layout);
  const runtime = clusterRuntimeDirectory(layout);
  if (environment.adaptorSocket === undefined)
    throw new SealpodError('NOT_FOUND', 'the environment has no adaptor', { fix: 'start one with `sealpod up`' });
  const snapshotterSocket = join(directory, 'snapshotter.sock');
  const installed = await installRuntime({
    containerdBinary: join(cluster.programs, 'containerd'),
    containerdConfigPath: cluster.containerdConfiguration,
    prefix: runtime,
    configDirectory: join(runtime, 'etc'),
    snapshotterSocket,
    snapshotterRoot: join(runtime, 'snapshots'),
    hypervisorSocket: environment.adaptorSocket,
  });
  const library = join(runtime, 'lib');
  const snapshotter = await startDaemon({
    name: 'snapshotter',
    command: join(library, 'node'),
    args: ['--no-warnings', join(library, 'snapshotter.mjs'), '--config', join(runtime, 'etc', 'snapshotter.json')],
    logDirectory: join(directory, 'logs'),
    ready: () => accepts(snapshotterSocket),
  });
  recordDaemon(directory, snapshotter);
  if (environment.registry !== undefined) allowPlainRegistry(directory, environment.registry);
  await restartContainerd(directory);
  kubectl(cluster, ['label', 'node', '--all', '--overwrite', 'sealpod.io/runtime=true']);
  kubectl(cluster, ['apply', '-f', '-'], readFileSync(installed.manifestPath, 'utf8'));
}

/** Runs the cluster's kubectl as its administrator. @throws SealpodError INTERNAL with what it printed */
export function kubectl(cluster: ClusterState, args: readonly string[], input = ''): string {
  const program = join(cluster.programs, 'kubectl');
  try {
    return execFileSync(program, ['--kubeconfig', cluster.kubeconfig, ...args], {
      input,
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  } catch (cause) {
    throw new SealpodError('INTERNAL', `kubectl ${args.join(' ')} failed`, { cause });
  }
}
