import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { isRunning } from '@sealpod/processes';
import { connectCri } from '@sealpod/runtimeclass/cri';
import type { Layout } from './layout.ts';
import type { EnvironmentState } from './state.ts';

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

/** Kills shims of this environment that outlived containerd, and unmounts what is mounted below its folders. */
export function removeShimsAndMounts(layout: Layout, state: EnvironmentState): void {
  if (state.containerdSocket !== undefined) killShims(state.containerdSocket);
  const own = [`${layout.run}/`, `${layout.home}/`];
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => own.some((prefix) => path.startsWith(prefix)));
  for (const path of mounts.sort().reverse()) execFileSync('umount', ['-l', path]);
}

/** A shim names containerd's socket on its command line, so those of another containerd stay. */
function killShims(containerdSocket: string): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let words: string[];
    try {
      words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    } catch (error) {
      if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH')) continue;
      throw error;
    }
    const isShim = words.some((word) => /(^|\/)(shim\.mjs|containerd-shim[\w-]*)$/.test(word));
    if (isShim && words.includes(containerdSocket)) process.kill(Number(pid), 'SIGKILL');
  }
}
