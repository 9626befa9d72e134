import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { allowPlainRegistry, type ClusterState, nodeName, recordDaemon, restartContainerd } from '@sealpod/cluster';
import { type Daemon, startDaemon } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { installRuntime } from '@sealpod/runtimeclass/installer';
import { statusSocketBeside } from '../development/adaptor.ts';
import { accepts } from '../development/containerd.ts';
import type { Layout } from '../development/layout.ts';
import type { EnvironmentState } from '../development/state.ts';
import { clusterDirectory, clusterRuntimeDirectory } from './layout.ts';

/**
 * Installs the runtime into a running cluster, as an operator does on a node: programs, containerd's fragment, the
 * snapshotter, a restart of containerd, the node's label and the RuntimeClass. Machines are those of the environment's
 * adaptor, and guests talk to its key broker and registry.
 *
 * @param machines how many pod VMs the node says that it can hold
 * @throws SealpodError NOT_FOUND where the environment has no adaptor; INTERNAL where a program does not start
 */
export async function installIntoCluster(
  layout: Layout,
  environment: EnvironmentState,
  cluster: ClusterState,
  machines: number,
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
  recordDaemon(directory, await startPodEvents(cluster, environment.adaptorSocket, join(directory, 'logs'), machines));
}

/** What the node agent does for a cluster that has none: events of pods, and the node's capacity. */
function startPodEvents(
  cluster: ClusterState,
  adaptorSocket: string,
  logDirectory: string,
  machines: number,
): Promise<Daemon> {
  const advertised = (): boolean =>
    kubectl(cluster, ['get', 'node', nodeName, '-o', 'jsonpath={.status.allocatable.sealpod\\.io/vm}']) ===
    String(machines);
  return startDaemon({
    name: 'pod-events',
    command: process.execPath,
    args: [
      fileURLToPath(import.meta.resolve('@sealpod/runtimeclass/pod-events/main')),
      ...['--kubeconfig', cluster.kubeconfig, '--node', nodeName, '--machines', String(machines)],
      ...['--status-socket', statusSocketBeside(adaptorSocket)],
    ],
    logDirectory,
    ready: advertised,
    readyTimeoutMs: 60_000,
  });
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
