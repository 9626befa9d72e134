import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';

interface Mount {
  readonly target: string;
  readonly type: string;
  readonly options: string;
}

/** In the order of their dependencies: those of one row need only the rows before. */
const mounts: readonly (readonly Mount[])[] = [
  [{ target: '/proc', type: 'proc', options: 'nosuid,nodev,noexec' }],
  [
    { target: '/sys', type: 'sysfs', options: 'nosuid,nodev,noexec' },
    { target: '/dev', type: 'devtmpfs', options: 'nosuid,mode=0755' },
    { target: '/run', type: 'tmpfs', options: 'nosuid,nodev,mode=0755' },
    { target: '/tmp', type: 'tmpfs', options: 'nosuid,nodev,mode=1777' },
  ],
  [
    { target: '/dev/pts', type: 'devpts', options: 'nosuid,noexec,mode=0620,ptmxmode=0666' },
    { target: '/dev/shm', type: 'tmpfs', options: 'nosuid,nodev,mode=1777' },
    { target: '/dev/mqueue', type: 'mqueue', options: 'nosuid,nodev,noexec' },
    { target: '/sys/fs/cgroup', type: 'cgroup2', options: 'nosuid,nodev,noexec,nsdelegate' },
    { target: '/sys/kernel/security', type: 'securityfs', options: 'nosuid,nodev,noexec' },
  ],
];

/** What of the machine `prepareSystem` touches; replaced in unit tests. */
export interface SystemCalls {
  readonly run: (program: string, parameters: readonly string[]) => Promise<void>;
  readonly mountTable: () => string | undefined;
  readonly makeDirectory: (path: string) => void;
  readonly writeHostname: (name: string) => void;
  /** Flags of the loopback interface (netdevice(7)), as sysfs shows them; undefined where there is none. */
  readonly loopbackFlags: () => string | undefined;
}

const interfaceIsUp = 1;
const loopbackFlagsFile = '/sys/class/net/lo/flags';

const realCalls: SystemCalls = {
  run: runProgram,
  mountTable: () => (existsSync('/proc/self/mountinfo') ? readFileSync('/proc/self/mountinfo', 'utf8') : undefined),
  makeDirectory: (path) => mkdirSync(path, { recursive: true }),
  writeHostname: (name) => writeFileSync('/proc/sys/kernel/hostname', name),
  loopbackFlags: () => (existsSync(loopbackFlagsFile) ? readFileSync(loopbackFlagsFile, 'utf8') : undefined),
};

/**
 * Makes the mounts that containers and this agent need, where the initial RAM disk has not made them, brings the loopback
 * interface up where it is not, and names the host. Uses the `mount` and `ip` programs of the image for what is missing:
 * each costs a tenth of a second where processors are emulated.
 *
 * @throws SealpodError PREREQUISITE
 */
export async function prepareSystem(calls: SystemCalls = realCalls): Promise<void> {
  for (const row of mounts) {
    const present = mountPoints(calls.mountTable());
    await Promise.all(row.filter(({ target }) => !present.has(target)).map((mount) => makeMount(calls, mount)));
  }
  calls.writeHostname('sealpod');
  if ((Number(calls.loopbackFlags() ?? 0) & interfaceIsUp) === 0) await calls.run('ip', ['link', 'set', 'lo', 'up']);
}

async function makeMount(calls: SystemCalls, { target, type, options }: Mount): Promise<void> {
  if (target.startsWith('/dev/')) calls.makeDirectory(target);
  await calls.run('mount', ['-t', type, '-o', options, type, target]);
}

/** The fifth field of each line of /proc/self/mountinfo (proc(5)). */
function mountPoints(table: string | undefined): Set<string> {
  const points = (table ?? '').split('\n').map((line) => line.split(' ')[4] ?? '');
  return new Set(points);
}

/** Runs a program to its end with its output discarded but for the reason of a failure. */
export async function runProgram(program: string, parameters: readonly string[]): Promise<void> {
  const child = spawn(program, parameters, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => {
    errors = (errors + chunk.toString()).slice(0, 1000);
  });
  const result = await new Promise<number | NodeJS.Signals | Error | null>((resolve) => {
    child.once('error', resolve);
    child.once('close', (code, signal) => resolve(code ?? signal));
  });
  if (result === 0) return;
  const reason = result instanceof Error ? result.message : `${result} ${errors.trim()}`;
  throw new SealpodError('PREREQUISITE', `${program} ${parameters.join(' ')} failed: ${reason}`, {
    ...(result instanceof Error ? { cause: result } : {}),
    fix: 'build the pod VM image with all programs of the guest',
  });
}
