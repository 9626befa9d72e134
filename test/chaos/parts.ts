import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { killProcess, type RunningProcess, runningProcesses } from '@sealpod/processes';
import { root, type TestEnvironment } from '../e2e/environment.ts';
import { eventually } from '../e2e/started.ts';

/** Everything that may die while the rest goes on. */
export const parts = ['containerd', 'snapshotter', 'adaptor', 'kbs', 'registry', 'shim', 'qemu', 'swtpm'] as const;
export type Part = (typeof parts)[number];

const configurations: Readonly<Record<string, string>> = {
  containerd: 'containerd.toml',
  snapshotter: 'snapshotter.json',
  adaptor: 'adaptor.json',
  kbs: 'kbs.json',
  registry: 'registry.yml',
};

/** The processes of one part of one environment. */
export function processesOf(environment: TestEnvironment, part: Part): RunningProcess[] {
  const configuration = configurations[part];
  if (configuration !== undefined) {
    const file = join(environment.home, configuration);
    return runningProcesses().filter(({ arguments: words }) => words.includes(file));
  }
  const ours = (words: readonly string[]): boolean => words.some((word) => word.includes(environment.runDirectory));
  const names: Readonly<Record<string, (words: readonly string[]) => boolean>> = {
    shim: (words) => words.some((word) => /\/shim\.(cjs|blob)$/.test(word)) && words.includes('serve'),
    qemu: (words) => words[0] === 'qemu-system-x86_64',
    swtpm: (words) => words[0] === 'swtpm',
  };
  return runningProcesses().filter(({ arguments: words }) => ours(words) && names[part]?.(words) === true);
}

/** Kills a part as the kernel does when memory runs out, and waits until it is gone. Throws where it does not run. */
export async function killPart(environment: TestEnvironment, part: Part): Promise<void> {
  const victims = processesOf(environment, part);
  if (victims.length === 0) throw new Error(`${part} does not run, so it cannot be killed`);
  for (const { pid } of victims) killProcess(pid);
  const pids = victims.map(({ pid }) => pid);
  await eventually(`the end of ${part}`, () => !processesOf(environment, part).some(({ pid }) => pids.includes(pid)));
}

/** Starts the adaptor again, as a service manager would. */
export async function startAdaptorAgain(environment: TestEnvironment): Promise<void> {
  startAgain(environment, '@sealpod/peer-pods/adaptor', 'adaptor.json');
  const socket = join(environment.runDirectory, 'hypervisor.sock');
  await eventually('the adaptor serves again', () => accepts({ path: socket }));
}

/** Starts the key broker again, as a service manager would. */
export async function startKeyBrokerAgain(environment: TestEnvironment): Promise<void> {
  startAgain(environment, '@sealpod/kbs/main', 'kbs.json');
  const { hostname, port } = new URL(String(environment.state()['kbsUrl']));
  await eventually('the key broker serves again', () => accepts({ host: hostname, port: Number(port) }));
}

function startAgain(environment: TestEnvironment, program: string, configuration: string): void {
  const file = join(environment.home, configuration);
  const child = spawn(process.execPath, [fileURLToPath(import.meta.resolve(program)), '--config', file], {
    cwd: root,
    detached: true,
    stdio: 'ignore',
  });
  child.unref();
}

function accepts(
  target: { readonly path: string } | { readonly host: string; readonly port: number },
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(target);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
