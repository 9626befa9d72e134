import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isRunning, killProcess, shimsOf, stopDaemon } from '@sealpod/processes';
import { removeControlGroup } from './cgroup.ts';
import type { ClusterLayout } from './layout.ts';
import { removePolicyRules } from './network-policy.ts';
import type { ClusterState } from './state.ts';
import { removeVolumeTraces } from './volume-traces.ts';

/** Ends a cluster's programs and pods and removes what they left in the kernel and on disk. Touches nothing of others. */
export async function removeTraces(layout: ClusterLayout, state: ClusterState): Promise<void> {
  const named = (...names: readonly string[]) => state.daemons.filter((daemon) => names.includes(daemon.name));
  await Promise.all(
    named(
      'kubelet',
      'kube-proxy',
      'kube-scheduler',
      'kube-controller-manager',
      'coredns',
      'network-policy',
      'metrics-server',
    ).map((daemon) => stopDaemon(daemon, 3000)),
  );
  if (named('containerd').some(isRunning)) removeTasks(layout, state.programs);
  await Promise.all(named('kube-apiserver', 'etcd', 'containerd').map((daemon) => stopDaemon(daemon, 5000)));
  killShims(layout);
  // What was added to the cluster, and what containerd needed until its end.
  await Promise.all(state.daemons.filter(isRunning).map((daemon) => stopDaemon(daemon, 5000)));
  // While they are mounted: what a kubelet holds block volumes by is known by that path alone.
  removeVolumeTraces(layout.directory);
  unmountBelow(layout.directory);
  removeNetworkResults(layout);
  removeControlGroup(state.addresses.bridge);
  removeTables(state);
  removePolicyRules();
  for (const name of [
    'etcd',
    'containerd',
    'kubelet',
    'volumes',
    'ipam',
    'pods',
    'opt',
    'controller-manager',
    'scheduler',
    'conf.d',
    'registry',
    'registries',
  ]) {
    rmSync(join(layout.directory, name), { recursive: true, force: true });
  }
  for (const socket of ['', '.ttrpc']) rmSync(`${layout.containerdSocket}${socket}`, { force: true });
}

function removeTasks(layout: ClusterLayout, programs: string): void {
  const ctr = (...args: readonly string[]): string =>
    spawnSync(join(programs, 'ctr'), ['-a', layout.containerdSocket, '-n', 'k8s.io', ...args], {
      encoding: 'utf8',
      timeout: 60_000,
    }).stdout ?? '';
  const list = (kind: string): string[] => ctr(kind, 'ls', '-q').split('\n').filter(Boolean);
  const tasks = list('tasks');
  if (tasks.length > 0) ctr('tasks', 'rm', '-f', ...tasks);
  const containers = list('containers');
  if (containers.length > 0) ctr('containers', 'rm', ...containers);
}

/** What the CNI library remembers of pods for their removal, which here is that of all their namespaces at once. */
function removeNetworkResults(layout: ClusterLayout): void {
  const folder = '/var/lib/cni/results';
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (readFileSync(path, 'utf8').includes(`"${layout.directory}/`)) rmSync(path);
  }
}

/** Shims outlive containerd by design. */
function killShims(layout: ClusterLayout): void {
  for (const { pid } of shimsOf(layout.containerdSocket)) killProcess(pid);
}

function unmountBelow(directory: string): void {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${directory}/`));
  for (const path of mounts.sort().reverse()) execFileSync('umount', ['-l', path]);
}

/** Network objects whose names are this cluster's, and the tables that only its programs make. */
function removeTables(state: ClusterState): void {
  spawnSync('ip', ['link', 'delete', state.addresses.bridge], { stdio: 'ignore' });
  for (const family of ['ip', 'ip6', 'inet']) {
    for (const table of ['kube-proxy', 'cni_hostport', 'cni_plugins_masquerade']) {
      spawnSync('nft', ['delete', 'table', family, table], { stdio: 'ignore' });
    }
  }
}
