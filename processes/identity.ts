import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/** A process that cannot be mistaken for a later one with the same number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks from boot to start, as text. */
  readonly startTime: string;
}

interface ProcessState {
  readonly identity: ProcessIdentity;
  /** Ended, and not yet collected by its parent. */
  readonly zombie: boolean;
}

/** The identity of a running process, or undefined where there is none with this number (a zombie counts as none). */
export function identityOf(pid: number): ProcessIdentity | undefined {
  const state = stateOf(pid);
  return state && !state.zombie ? state.identity : undefined;
}

/** Whether exactly this process still runs. */
export function isRunning(identity: ProcessIdentity): boolean {
  return identityOf(identity.pid)?.startTime === identity.startTime;
}

/** The arguments of a process; empty where it is gone. */
export function commandLineOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

/** What tells a process of ours from any other: its program and a text that only its arguments hold. */
export interface ProcessPattern {
  /** Base name of /proc/<pid>/exe. */
  readonly executable: string;
  /** Part of one argument. */
  readonly marker: string;
}

/** The running processes that match, but never this one. */
export function findProcesses(pattern: ProcessPattern): ProcessIdentity[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => matches(Number(name), pattern))
    .flatMap((name) => identityOf(Number(name)) ?? []);
}

/**
 * Ends a process: SIGTERM, and SIGKILL after `graceMs`. It is signalled only while its start time, its program and its
 * command line are the expected ones, so a number that was given to another process since is left alone.
 * Throws INTERNAL where it outlives SIGKILL by five seconds.
 */
export async function endProcess(identity: ProcessIdentity, pattern: ProcessPattern, graceMs: number): Promise<void> {
  const signals: [NodeJS.Signals, number][] = [
    ['SIGTERM', graceMs],
    ['SIGKILL', 5000],
  ];
  for (const [signal, patienceMs] of signals) {
    if (!isRunning(identity) || !matches(identity.pid, pattern)) return;
    try {
      process.kill(identity.pid, signal);
    } catch (error) {
      if (isGone(error)) return;
      throw error;
    }
    const deadline = Date.now() + patienceMs;
    while (Date.now() < deadline) {
      if (!isRunning(identity)) return;
      await sleep(10);
    }
  }
  if (!isRunning(identity)) return;
  throw new SealpodError('INTERNAL', `process ${identity.pid} does not end`, {
    actual: commandLineOf(identity.pid).join(' '),
  });
}

function matches(pid: number, { executable, marker }: ProcessPattern): boolean {
  return executableOf(pid) === executable && commandLineOf(pid).some((argument) => argument.includes(marker));
}

function executableOf(pid: number): string | undefined {
  try {
    // An updated package leaves its running program under this suffix.
    return basename(readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, ''));
  } catch (error) {
    // Kernel threads have none; another user's may not be looked at.
    if (isGone(error) || (error as NodeJS.ErrnoException).code === 'EACCES') return undefined;
    throw error;
  }
}

function stateOf(pid: number): ProcessState | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
  // The second field is the name in parentheses, which may hold anything; the rest follows its last parenthesis.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, startTime] = [fields[0], fields[19]];
  if (state === undefined || startTime === undefined) return undefined;
  return { identity: { pid, startTime }, zombie: state === 'Z' || state === 'X' };
}

function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ESRCH';
}
