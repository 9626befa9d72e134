import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Layout } from './layout.ts';
import type { Daemon } from './state.ts';

/** How to start one daemon and how to know that it serves. */
export interface DaemonSpecification {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Returns true once the daemon serves. Asked again every 20 ms until `readyTimeoutMs`. */
  readonly ready: () => boolean | Promise<boolean>;
  readonly readyTimeoutMs?: number;
}

/** Field 22 of /proc/PID/stat, or undefined where the process is gone or a zombie. */
export function processStartTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH'))
      return undefined;
    throw error;
  }
}

/** Whether exactly this daemon still runs. */
export function isRunning(daemon: Daemon): boolean {
  return processStartTime(daemon.pid) === daemon.startTime;
}

/**
 * Starts a daemon in a session of its own, its output going to `<logs>/<name>.log`, and waits until it serves.
 *
 * @throws SealpodError INTERNAL with the end of its log, where it exits or does not serve in time.
 */
export async function startDaemon(layout: Layout, specification: DaemonSpecification): Promise<Daemon> {
  mkdirSync(layout.logs, { recursive: true, mode: 0o700 });
  const logFile = join(layout.logs, `${specification.name}.log`);
  const log = openSync(logFile, 'w', 0o600);
  const child = spawn(specification.command, specification.args, {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, ...specification.environment },
  });
  closeSync(log);
  const pid = await started(child, specification);
  const startTime = processStartTime(pid);
  const deadline = Date.now() + (specification.readyTimeoutMs ?? 30_000);
  while (startTime !== undefined && processStartTime(pid) === startTime && Date.now() < deadline) {
    if (await specification.ready()) {
      child.unref();
      return { name: specification.name, pid, startTime };
    }
    await delay(20);
  }
  if (startTime !== undefined && processStartTime(pid) === startTime) process.kill(pid, 'SIGKILL');
  throw new SealpodError('INTERNAL', `${specification.name} did not become ready`, {
    expected: `ready within ${(specification.readyTimeoutMs ?? 30_000) / 1000} s`,
    actual: readFileSync(logFile, 'utf8').split('\n').slice(-6).join('\n').trim() || 'no output',
    fix: `see ${logFile}`,
  });
}

function started(child: ChildProcess, specification: DaemonSpecification): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('error', (cause) =>
      reject(new SealpodError('PREREQUISITE', `${specification.command} could not be started`, { cause })),
    );
    child.once('spawn', () => resolve(child.pid ?? 0));
  });
}

/** Ends a daemon: SIGTERM, and SIGKILL where it still runs after `graceMs`. Returns once it is gone. */
export async function stopDaemon(daemon: Daemon, graceMs = 8000): Promise<void> {
  const deadline = Date.now() + graceMs;
  if (!isRunning(daemon)) return;
  process.kill(daemon.pid, 'SIGTERM');
  while (isRunning(daemon)) {
    if (Date.now() > deadline) process.kill(daemon.pid, 'SIGKILL');
    await delay(20);
  }
}
