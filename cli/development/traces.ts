import { execFileSync } from 'node:child_process';
import { globSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Daemon,
  identityOf,
  isRunning,
  killProcess,
  runningProcesses,
  sharesRoot,
  shimsOf,
} from '@sealpod/processes';
import { connectCri } from '@sealpod/runtimeclass/cri';
import { removeShimTraces } from '@sealpod/runtimeclass/shim/traces';
import type { Layout } from './layout.ts';
import type { EnvironmentState } from './state.ts';

/** The configuration file of each daemon: on its command line it tells whose the process is. */
const configurationFiles: Readonly<Record<string, string>> = {
  'kbs.json': 'kbs',
  'registry.yml': 'registry',
  'adaptor.json': 'adaptor',
  'snapshotter.json': 'snapshotter',
  'containerd.toml': 'containerd',
};

/** The daemons of this environment that run, also those whose start was cut off before it was written down. */
export function findDaemons(layout: Layout): Daemon[] {
  const names = new Map(Object.entries(configurationFiles).map(([file, name]) => [join(layout.home, file), name]));
  return runningProcesses().flatMap(({ pid, arguments: words }) => {
    const name = words.map((word) => names.get(word)).find((found) => found !== undefined);
    const startTime = name === undefined ? undefined : identityOf(pid)?.startTime;
    return name === undefined || startTime === undefined || !sharesRoot(pid) ? [] : [{ name, pid, startTime }];
  });
}

/** Removes every pod through containerd while it runs. Failures are told, not fatal: what remains is removed by hand next. */
export async function removePods(state: EnvironmentState): Promise<string[]> {
  const containerd = state.daemons.find((daemon) => daemon.name === 'containerd');
  if (state.containerdSocket === undefined || containerd === undefined || !isRunning(containerd)) return [];
  const cri = connectCri(state.containerdSocket);
  const problems: string[] = [];
  try {
    const { items } = await cri.runtime.listPodSandbox({}, { timeoutMs: 5000 });
    const remove = async (podSandboxId: string): Promise<void> => {
      await cri.runtime.stopPodSandbox({ podSandboxId }, { timeoutMs: 20_000 });
      await cri.runtime.removePodSandbox({ podSandboxId }, { timeoutMs: 10_000 });
    };
    const tell = (error: unknown): void => {
      problems.push(error instanceof Error ? error.message : String(error));
    };
    await Promise.all(items.map((item) => remove(item.id).catch(tell)));
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error));
  } finally {
    cri.close();
  }
  return problems;
}

/**
 * Kills shims of this environment that outlived containerd, removes their sockets, and unmounts what is mounted below
 * the environment's folders, pods' network namespaces among it.
 */
export function removeShimsAndMounts(layout: Layout, state: EnvironmentState): void {
  if (state.containerdSocket !== undefined) killShims(state.containerdSocket);
  removeShimSockets(layout);
  const own = [`${layout.run}/`, `${layout.home}/`];
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => own.some((prefix) => path.startsWith(prefix)));
  for (const path of mounts.sort().reverse()) execFileSync('umount', ['-l', path]);
}

function killShims(containerdSocket: string): void {
  for (const { pid, arguments: words } of shimsOf(containerdSocket)) {
    killProcess(pid);
    const socket = words[words.indexOf('-socket') + 1] ?? '';
    if (socket.startsWith('/run/containerd/s/')) rmSync(socket, { force: true });
  }
}

/** Each bundle says where its shim was reached. */
function removeShimSockets(layout: Layout): void {
  for (const file of globSync(join(layout.run, 'containerd/io.containerd.runtime.v2.task/*/*/address'))) {
    const path = readFileSync(file, 'utf8').trim().replace('unix://', '');
    if (/^\/run\/containerd\/s\/[0-9a-f]{64}$/.test(path)) rmSync(path, { force: true });
  }
  removeShimTraces(layout.run);
}

/** What the CNI library remembers of pods that were never disconnected in order. */
export function removeNetworkResults(layout: Layout, directory = '/var/lib/cni/results'): void {
  const prefix = `sealpod-${layout.tag}-`;
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
    throw error;
  }
  const pods = names.flatMap((name) =>
    name.startsWith(prefix) ? (name.slice(prefix.length).split('-')[0] ?? []) : [],
  );
  for (const name of names) if (pods.some((pod) => name.includes(pod))) rmSync(join(directory, name), { force: true });
}
