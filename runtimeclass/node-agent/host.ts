import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { commandLineOf } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import type { NodeAgentConfig } from './config.ts';

/** What the agent's own programs on the host are looked for in. */
const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const maxOutputBytes = 8 << 20;
const namespaces = ['mnt', 'uts', 'ipc', 'net'] as const;

/** What the host's own programs leave behind is for others too: a containerd that is restarted keeps its umask. */
const umasks = { host: '022', services: '077' };

/**
 * Runs before each program on the host: leaves the control groups of the agent's pod, which end with the pod and all in
 * them. `$1` is the group to join, below the root of each hierarchy; empty for the roots. `$2` is the umask. The out-of-memory
 * score of a pod is not that of a daemon; where the machine does not let it be lowered, it stays.
 */
const leavePod = `
group=$1; mask=$2; shift 2
join() {
  target=$1\${group:+/$group}
  mkdir -p "$target"
  for file in cpuset.cpus cpuset.mems; do
    if [ -e "$1/$file" ] && [ -e "$target/$file" ] && [ -z "$(cat "$target/$file")" ]; then
      cat "$1/$file" >"$target/$file"
    fi
  done
  echo $$ >"$target/cgroup.procs"
}
root=/sys/fs/cgroup
if [ -e "$root/cgroup.controllers" ]; then join "$root"
else for hierarchy in "$root"/*; do
  if [ -d "$hierarchy" ] && ! [ -L "$hierarchy" ] && [ -e "$hierarchy/cgroup.procs" ]; then join "$hierarchy"; fi
done; fi
(echo 0 >/proc/self/oom_score_adj) 2>/dev/null || true
umask "$mask"
exec "$@"
`;

/** The node that the agent runs on: its files, its namespaces, its processes. */
export class Host {
  readonly root: string;
  readonly #config: NodeAgentConfig;

  constructor(config: NodeAgentConfig) {
    this.root = config.hostRoot;
    this.#config = config;
  }

  /** A path of the host, as this process reaches it. */
  path(...names: readonly string[]): string {
    return join(this.root, ...names);
  }

  /** Control group of snapshotter, adaptor and pod VMs, at the root of each hierarchy: one for each installation. */
  get #serviceGroup(): string {
    const { prefix } = this.#config;
    if (prefix === '/opt/sealpod') return 'sealpod';
    return `sealpod-${createHash('sha256').update(prefix).digest('hex').slice(0, 8)}`;
  }

  /** Whether the host was booted with systemd (sd_booted(3)). */
  get hasSystemd(): boolean {
    return existsSync(this.path('/run/systemd/system'));
  }

  /**
   * Runs a program in the host's namespaces and outside the agent's pod; returns what it printed.
   *
   * @throws SealpodError PREREQUISITE where it fails, with the end of what it printed
   */
  async run(command: readonly string[], timeoutMs = 30_000): Promise<string> {
    const [program = '', ...args] = this.#wrapped(command, '', umasks.host);
    return new Promise((resolve, reject) => {
      const options = { timeout: timeoutMs, maxBuffer: maxOutputBytes, env: { PATH: searchPath, LC_ALL: 'C' } };
      execFile(program, args, options, (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        const printed = `${stderr}\n${stdout}`.trim().slice(-2000);
        reject(
          new SealpodError('PREREQUISITE', `${command.join(' ')} failed on the host`, {
            cause: error,
            expected: 'exit status 0',
            actual: printed === '' ? (error.message.split('\n')[0] ?? '') : printed,
          }),
        );
      });
    });
  }

  /**
   * Starts a program in the host's namespaces, in a session and a control group of its own: it outlives the agent and its
   * pod. Its output goes to `logFile` on the host.
   */
  start(command: readonly string[], logFile: string): ChildProcess {
    const file = this.path(logFile);
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const log = openSync(file, 'a', 0o600);
    try {
      const [program = '', ...args] = this.#wrapped(command, this.#serviceGroup, umasks.services);
      const child = spawn(program, args, {
        detached: true,
        stdio: ['ignore', log, log],
        cwd: '/',
        env: { PATH: searchPath, LC_ALL: 'C' },
      });
      child.unref();
      return child;
    } finally {
      closeSync(log);
    }
  }

  #wrapped(command: readonly string[], group: string, umask: string): string[] {
    return [...this.#enter(), 'sh', '-c', leavePod, 'sh', group, umask, ...command];
  }

  /** Nothing where the agent runs on the host itself. */
  #enter(): string[] {
    if (this.root === '/') return [];
    const pid = this.#hostProcess();
    return ['nsenter', '--target', String(pid), '--mount', '--uts', '--ipc', '--net', '--cgroup', '--'];
  }

  /** @throws SealpodError PREREQUISITE where no process shows the host's namespaces */
  #hostProcess(): number {
    const { hostProcess, containerd } = this.#config;
    if (hostProcess !== 'containerd' && isOpen(1)) return 1;
    if (hostProcess !== 'init') {
      const found = processNumbers().filter((pid) => isContainerd(pid) && isOpen(pid));
      const named = found.find((pid) => commandLineOf(pid).some((word) => word.endsWith(containerd.configuration)));
      const [only, ...others] = found;
      if (named !== undefined) return named;
      if (only !== undefined && others.length === 0) return only;
    }
    throw new SealpodError('PREREQUISITE', "the host's namespaces cannot be entered", {
      expected: 'a privileged container with hostPID: true',
      actual: `process 1 ${isOpen(1) ? 'is open' : 'may not be looked into'}; hostProcess is ${hostProcess}`,
    });
  }

  /** Paths of all running programs, on the host. */
  executables(): string[] {
    return processNumbers().flatMap((pid) => executableOf(pid) ?? []);
  }

  /** Removes the control group of the services, where it is empty. */
  async removeServiceGroup(): Promise<void> {
    const name = this.#serviceGroup;
    const script = `for group in /sys/fs/cgroup/${name} /sys/fs/cgroup/*/${name}; do
      if [ -d "$group" ]; then rmdir "$group"; fi; done`;
    await this.run(['sh', '-c', script]);
  }
}

function processNumbers(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function executableOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    // Gone, a kernel thread, or another user's: none of ours.
    return undefined;
  }
}

/**
 * Whether a process is the host's containerd, by the name of its program or, where one program is several, by the name it
 * was called by. What calls itself so in a container has process numbers of its own.
 */
function isContainerd(pid: number): boolean {
  const names = [executableOf(pid) ?? '', commandLineOf(pid)[0] ?? ''].map((path) => basename(path));
  return names.includes('containerd') && processNamespaceOf(pid) === processNamespaceOf('self');
}

function processNamespaceOf(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** Whether the namespaces of a process may be entered. */
function isOpen(pid: number): boolean {
  try {
    for (const name of namespaces) readlinkSync(`/proc/${pid}/ns/${name}`);
    return true;
  } catch {
    return false;
  }
}
