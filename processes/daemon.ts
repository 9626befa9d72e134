import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { identityOf, isRunning, type ProcessIdentity } from './identity.ts';

/** One background process that this room started. */
export interface Daemon extends ProcessIdentity {
  readonly name: string;
}

/** How to start one daemon and how to know that it serves. */
export interface DaemonSpecification {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Folder for `<name>.log`, which holds the output of this run only. */
  readonly logDirectory: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Returns true once the daemon serves. Asked again every 20 ms until `readyTimeoutMs`. */
  readonly ready: () => boolean | Promise<boolean>;
  readonly readyTimeoutMs?: number;
}

/**
 * Starts a daemon in a session of its own, its output going to its log file, and waits until it serves.
 *
 * @throws SealpodError INTERNAL with the end of its log, where it exits or does not serve in time.
 */
export async function startDaemon(specification: DaemonSpecification): Promise<Daemon> {
  mkdirSync(specification.logDirectory, { recursive: true, mode: 0o700 });
  const logFile = join(specification.logDirectory, `${specification.name}.log`);
  const log = openSync(logFile, 'w', 0o600);
  const child = spawn(specification.command, specification.args, {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, ...specification.environment },
  });
  closeSync(log);
  const pid = await started(child, specification);
  const identity = identityOf(pid);
  const deadline = Date.now() + (specification.readyTimeoutMs ?? 30_000);
  while (identity !== undefined && isRunning(identity) && Date.now() < deadline) {
    if (await specification.ready()) {
      child.unref();
      return { name: specification.name, ...identity };
    }
    await delay(20);
  }
  if (identity !== undefined && isRunning(identity)) process.kill(pid, 'SIGKILL');
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
