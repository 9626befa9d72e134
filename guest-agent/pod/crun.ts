import { execFile } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { mkdir, readFile, rm, watch, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { SealpodError } from '@sealpod/protocol/errors';
import { type GuestProcess, startProcess, type TerminalSize } from './guest-process.ts';
import type { RuntimeJson } from './seccomp-profile.ts';

export interface CrunOptions {
  /** Folder of crun's state. */
  readonly state: string;
  /** `disabled` on a machine whose cgroups are not the agent's to change. Default `cgroupfs`. */
  readonly cgroupManager?: 'cgroupfs' | 'disabled';
  /** Default `crun`. */
  readonly command?: string;
}

/** A process in a container, and its number in the guest. */
export interface ContainerProcess extends GuestProcess {
  readonly pid: number;
}

const commandTimeoutMs = 30_000;
/** crun needs no more of the agent's environment. */
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

/**
 * The crun program. A container's first process is crun in the foreground, a child of this one: its exit status and its
 * streams are the container's, and nothing has to adopt or to poll.
 */
export class Crun {
  readonly #options: CrunOptions;

  constructor(options: CrunOptions) {
    this.#options = options;
  }

  /** Starts a container from `bundle`, whose config.json is written here. Rejects with crun's own message. */
  async run(
    id: string,
    bundle: string,
    spec: RuntimeJson,
    terminal: TerminalSize | undefined,
  ): Promise<ContainerProcess> {
    await writeFile(join(bundle, 'config.json'), JSON.stringify(spec), { mode: 0o600 });
    return this.#start(join(bundle, 'init'), ['run', '--bundle', bundle], [id], terminal);
  }

  /** Starts another process in a running container. `scratch` is a folder of this process' own, not there yet. */
  async exec(
    id: string,
    scratch: string,
    process: RuntimeJson,
    terminal: TerminalSize | undefined,
  ): Promise<ContainerProcess> {
    await mkdir(scratch, { recursive: true, mode: 0o700 });
    const file = join(scratch, 'process.json');
    await writeFile(file, JSON.stringify(process), { mode: 0o600 });
    return this.#start(scratch, ['exec', '--process', file], [id], terminal);
  }

  /** Sends a signal to every process of a container. A container that is gone is no failure. */
  async killAll(id: string, signal: number): Promise<void> {
    await this.#command(['kill', '--all', id, String(signal)], true);
  }

  async pause(id: string): Promise<void> {
    await this.#command(['pause', id]);
  }

  async resume(id: string): Promise<void> {
    await this.#command(['resume', id]);
  }

  /** Changes limits (runtime-spec `linux.resources`). */
  async update(id: string, resources: RuntimeJson, scratch: string): Promise<void> {
    await mkdir(scratch, { recursive: true, mode: 0o700 });
    const file = join(scratch, 'resources.json');
    await writeFile(file, JSON.stringify(resources), { mode: 0o600 });
    await this.#command(['update', '--resources', file, id]).finally(() =>
      rm(scratch, { recursive: true, force: true }),
    );
  }

  /** Removes what crun knows of a container, and its processes. A container that is gone is no failure. */
  async delete(id: string): Promise<void> {
    await this.#command(['delete', '--force', id], true);
  }

  #global(): string[] {
    return ['--root', this.#options.state, '--cgroup-manager', this.#options.cgroupManager ?? 'cgroupfs'];
  }

  async #start(
    folder: string,
    verb: readonly string[],
    rest: readonly string[],
    terminal: TerminalSize | undefined,
  ): Promise<ContainerProcess> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const [pidFile, log] = [join(folder, 'pid'), join(folder, 'log')];
    const stop = new AbortController();
    const pidWritten = fileWritten(folder, 'pid', stop.signal);
    try {
      const process = await startProcess({
        command: this.#options.command ?? 'crun',
        arguments: [...this.#global(), `--log=${log}`, '--log-format=text', ...verb, '--pid-file', pidFile, ...rest],
        environment,
        ...(terminal === undefined ? {} : { terminal }),
        scratch: join(folder, 'streams'),
      });
      const pid = await Promise.race([pidWritten, process.exited.then(() => readPid(pidFile))]);
      if (pid === undefined) throw await startFailure(log, await process.exited);
      return { ...process, pid, resize: (size) => withTerminalOf(pid, (inner) => process.resize(size, inner)) };
    } finally {
      stop.abort();
    }
  }

  #command(arguments_: readonly string[], missingIsFine = false): Promise<void> {
    return new Promise((resolve, reject) => {
      const command = this.#options.command ?? 'crun';
      const options = { timeout: commandTimeoutMs, env: environment };
      execFile(command, [...this.#global(), ...arguments_], options, (error, _stdout, stderr) => {
        const gone = missingIsFine && /does not exist|No such file|No such process|not running/.test(stderr);
        if (error === null || gone) resolve();
        else
          reject(
            new SealpodError('INTERNAL', `crun ${arguments_[0]}: ${stderr.trim() || error.message}`, { cause: error }),
          );
      });
    });
  }
}

async function readPid(file: string): Promise<number | undefined> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  const pid = Number(text.trim());
  return Number.isInteger(pid) && pid > 0 ? pid : undefined;
}

/** The number in the file `name` of `folder` as soon as it is there; undefined when `signal` ends the wait. */
async function fileWritten(folder: string, name: string, signal: AbortSignal): Promise<number | undefined> {
  try {
    for await (const _event of watch(folder, { signal })) {
      const pid = await readPid(join(folder, name));
      if (pid !== undefined) return pid;
    }
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
  }
  return undefined;
}

async function startFailure(log: string, status: number): Promise<SealpodError> {
  const text = await readFile(log, 'utf8').catch(() => '');
  return new SealpodError('INTERNAL', `failed to start the process: ${text.trim() || `crun ended with ${status}`}`);
}

/** Calls `use` with a descriptor of the terminal that a process has at one of its standard streams, if any. */
function withTerminalOf(pid: number, use: (terminal: number | undefined) => void): void {
  for (const stream of [0, 1, 2]) {
    const descriptor = openIfThere(`/proc/${pid}/fd/${stream}`);
    if (descriptor === undefined) continue;
    try {
      if (!isatty(descriptor)) continue;
      use(descriptor);
      return;
    } finally {
      closeSync(descriptor);
    }
  }
  use(undefined);
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK);
  } catch {
    // The process is gone, has closed the stream, or has something there that is no terminal and cannot be opened.
    return undefined;
  }
}
