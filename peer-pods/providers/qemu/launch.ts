import type { ChildProcess } from 'node:child_process';
import { chown, type FileHandle, mkdir, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { identityOf, type ProcessIdentity } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Owner } from '../../pod-vm/tpm-authority.ts';
import { readEnd } from '../machine-file.ts';
import { startConfined } from './confinement.ts';
import { type MachineOptions, machineArguments } from './machine.ts';
import { isMachineRunning } from './qmp.ts';

/** Names in a machine's folder. */
export const machineFiles = {
  console: 'console.log',
  agentSocket: 'agent.sock',
  qmpSocket: 'qmp.sock',
  tpmSocket: 'tpm.sock',
  tpmState: 'tpm',
  tpmLog: 'tpm.log',
  hypervisorLog: 'hypervisor.log',
  initdata: 'initdata.img',
} as const;

/** A console beyond this size is cut off, in bytes. */
export const maxConsoleBytes = 1 << 20;
/** TPM state is a few kilobytes. */
const maxTpmFileBytes = 1 << 20;
const startTimeoutMs = 20_000;

export interface Launched {
  readonly child: ChildProcess;
  readonly identity: ProcessIdentity;
}

/** Makes the folder of one machine, for `owner` alone. */
export async function makeMachineDirectory(directory: string, owner: Owner): Promise<void> {
  await mkdir(directory, { mode: 0o700 });
  if (process.getuid?.() === 0) await chown(directory, owner.uid, owner.gid);
}

/**
 * Starts the software TPM whose state lies in `tpm` of the folder; it ends with its machine.
 *
 * @throws SealpodError `PREREQUISITE`, `HYPERVISOR`
 */
export async function startTpm(
  directory: string,
  owner: Owner,
  marker: string,
  programsDirectory?: string,
): Promise<Launched> {
  const { tpmState, tpmSocket, tpmLog } = machineFiles;
  const state = ['--tpm2', '--tpmstate', `dir=${tpmState},mode=0600`, '--terminate', '--seccomp', 'action=kill'];
  const control = ['--ctrl', `type=unixio,path=${tpmSocket},mode=0600`];
  // The prefix is there to be seen in the process list.
  const log = ['--log', `file=${tpmLog},level=1,prefix=${marker}`];
  const child = await startConfined('swtpm', ['socket', ...state, ...control, ...log], {
    ...{ owner, directory, programsDirectory, maxFileBytes: maxTpmFileBytes, logFile: tpmLog },
  });
  await waitUntil(
    child,
    () => exists(join(directory, tpmSocket)),
    () => failed('swtpm', directory, tpmLog),
  );
  return { child, identity: identify(child, 'swtpm') };
}

export interface LaunchOptions {
  readonly directory: string;
  readonly owner: Owner;
  readonly programsDirectory?: string | undefined;
  readonly netnsPath?: string | undefined;
  readonly diskFile: string;
  readonly machine: Omit<MachineOptions, 'consoleFile' | 'tpmSocket' | 'sockets'>;
  /** Larger files cannot be written; default: what bounds the console. */
  readonly maxFileBytes?: number;
}

/**
 * Starts QEMU and returns once its control socket answers: devices and disks are there and the guest runs, or waits for the
 * state of another machine where that is asked for.
 *
 * @throws SealpodError `PREREQUISITE`, `HYPERVISOR`, `PROVIDER_IMAGE` where the disk cannot be opened
 */
export async function startMachine(options: LaunchOptions): Promise<Launched> {
  const { directory, owner, machine, programsDirectory } = options;
  const { console, agentSocket, qmpSocket, tpmSocket, hypervisorLog, initdata } = machineFiles;
  const opened: FileHandle[] = [];
  try {
    // Opened here: the unprivileged user need not reach the image, and one that is replaced meanwhile stays the same.
    for (const file of [options.diskFile, join(directory, initdata)]) opened.push(await openDisk(file));
    const sockets = { agent: agentSocket, qmp: qmpSocket };
    const args = machineArguments({ ...machine, consoleFile: console, tpmSocket, sockets });
    const child = await startConfined('qemu-system-x86_64', args, {
      ...{ owner, directory, programsDirectory, netnsPath: options.netnsPath, kvm: machine.accelerator === 'kvm' },
      ...{
        maxFileBytes: options.maxFileBytes ?? maxConsoleBytes,
        logFile: hypervisorLog,
        descriptors: opened.map((handle) => handle.fd),
      },
    });
    const status = machine.incoming === true ? 'inmigrate' : 'running';
    const answers = (): Promise<boolean> => isMachineRunning(join(directory, qmpSocket), status);
    await waitUntil(child, answers, () => failed('qemu-system-x86_64', directory, hypervisorLog));
    return { child, identity: identify(child, 'qemu-system-x86_64') };
  } finally {
    for (const handle of opened) await handle.close();
  }
}

async function openDisk(file: string): Promise<FileHandle> {
  return open(file, 'r').catch((error: unknown) => {
    throw new SealpodError('PROVIDER_IMAGE', `the disk ${file} cannot be opened`, { cause: error });
  });
}

/** Waits for a condition of a program that was started; ends it where it is not met in time. */
async function waitUntil(
  child: ChildProcess,
  condition: () => Promise<boolean>,
  failure: () => Promise<SealpodError>,
): Promise<void> {
  const deadline = Date.now() + startTimeoutMs;
  while (!(await condition())) {
    if (child.exitCode !== null || child.signalCode !== null) throw await failure();
    if (Date.now() > deadline) {
      child.kill('SIGKILL');
      throw await failure();
    }
    await sleep(10);
  }
}

async function failed(program: string, directory: string, logFile: string): Promise<SealpodError> {
  const text = await readEnd(join(directory, logFile), 64 * 1024).then(String, () => '');
  const missing = /No such file or directory$/m.test(text) && text.includes(`failed to execute ${program}`);
  return new SealpodError(missing ? 'PREREQUISITE' : 'HYPERVISOR', `${program} did not start`, {
    actual: text.slice(-2000).trim() || 'no message',
  });
}

function identify(child: ChildProcess, program: string): ProcessIdentity {
  const identity = child.pid === undefined ? undefined : identityOf(child.pid);
  if (identity === undefined) throw new SealpodError('HYPERVISOR', `${program} ended at once`);
  return identity;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
