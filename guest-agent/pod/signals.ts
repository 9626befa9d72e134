import { readFile, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Container } from './container.ts';
import type { ContainerProcess } from './crun.ts';
import { invalidArgument, notFound } from './failures.ts';

/** SIGRTMAX of Linux: images may stop on a real-time signal, for which there is no name here. */
const lastSignal = 64;
const terminatedStatus = 128 + constants.signals.SIGTERM;

/** Throws INVALID_ARGUMENT for what is no signal. */
export function checkSignal(signal: number): void {
  if (signal < 1 || signal > lastSignal) throw invalidArgument(`signal ${signal} is unknown`);
}

/** Signals one process of a container. Throws NOT_FOUND where it is gone. */
export async function signalProcess(process: ContainerProcess, signal: number): Promise<void> {
  if (!(await isRunning(process))) throw notFound(`process ${process.pid} is gone`);
  kill(process.pid, signal);
}

/**
 * Signals a container's first process; all of the container's for SIGKILL. One that was never started ends by a signal
 * that ends processes. Throws NOT_FOUND where it is gone.
 *
 * @param cgroup of the container; need not exist
 */
export async function signalContainer(container: Container, cgroup: string, signal: number): Promise<void> {
  const deadly = signal === constants.signals.SIGKILL || signal === constants.signals.SIGTERM;
  if (container.state === 'ended') throw notFound(`container ${container.id} is not running`);
  if (container.process === undefined) {
    if (deadly) container.end(signal === constants.signals.SIGTERM ? terminatedStatus : undefined);
    return;
  }
  const { pid } = container.process;
  if (signal === constants.signals.SIGKILL) await killAll(container, cgroup);
  // A namespace's first process does not get a signal that it has no handler for.
  else if (signal === constants.signals.SIGTERM && !(await handles(pid, signal))) kill(pid, constants.signals.SIGKILL);
  else kill(pid, signal);
}

/** Kills whatever runs in a container; nothing where nothing does. */
export async function killAll(container: Container, cgroup: string): Promise<void> {
  await writeFile(join(cgroup, 'cgroup.kill'), '1', { flag: 'r+' }).catch((error: NodeJS.ErrnoException) => {
    // Without a cgroup of its own the first process takes its pid namespace along.
    if (error.code !== 'ENOENT') throw error;
  });
  if (container.process !== undefined && (await isRunning(container.process)))
    kill(container.process.pid, constants.signals.SIGKILL, true);
}

function isRunning(process: ContainerProcess): Promise<boolean> {
  return Promise.race([process.exited.then(() => false), Promise.resolve().then(() => true)]);
}

function kill(pid: number, signal: number, goneIsFine = false): void {
  try {
    process.kill(pid, signal);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown;
    if (!goneIsFine) throw notFound(`process ${pid} is gone`);
  }
}

/** Whether a process has a handler for a signal (SigCgt in proc(5)). */
async function handles(pid: number, signal: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw notFound(`process ${pid} is gone`);
    throw error;
  });
  const mask = /^SigCgt:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}
