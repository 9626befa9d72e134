import { open, readFile, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { identityOf, isRunning, type ProcessIdentity } from './identity.ts';

const pollMs = 200;

export interface Lock {
  release(): Promise<void>;
}

/**
 * Lets one process at a time use what lies beside `path`. A lock whose process is gone is taken over.
 * Throws STORAGE where another process holds it, which is called `who`.
 */
export async function takeLock(path: string, who: string): Promise<Lock> {
  const taken = await tryLock(path);
  if ('release' in taken) return taken;
  throw new SealpodError('STORAGE', `another ${who} (process ${taken.pid}) holds ${path}`, {
    fix: 'stop it, or configure another folder',
  });
}

/**
 * As `takeLock`, but waits while another process holds the lock.
 *
 * @param waits told once that it has to wait, and for which process
 */
export async function waitForLock(path: string, waits: (pid: number) => void): Promise<Lock> {
  for (let told = false; ; told = true) {
    const taken = await tryLock(path);
    if ('release' in taken) return taken;
    if (!told) waits(taken.pid);
    await delay(pollMs);
  }
}

/** The lock, or the process that holds it. */
async function tryLock(path: string): Promise<Lock | ProcessIdentity> {
  const identity = identityOf(process.pid);
  if (!identity) throw new SealpodError('STORAGE', '/proc does not show this process');
  for (let attempt = 0; ; attempt++) {
    try {
      const file = await open(path, 'wx', 0o600);
      await file.writeFile(JSON.stringify(identity));
      await file.close();
      return { release: () => rm(path, { force: true }) };
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
      const holder = await holderOf(path);
      if (holder && isRunning(holder)) return holder;
      if (attempt > 0) throw new SealpodError('STORAGE', `the lock ${path} is contended`, { cause });
      await rm(path, { force: true });
    }
  }
}

/** Undefined where the file says nothing of use: its writer died before it was written. */
async function holderOf(path: string): Promise<ProcessIdentity | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof value !== 'object' || value === null) return undefined;
    const { pid, startTime } = value as Record<string, unknown>;
    return typeof pid === 'number' && typeof startTime === 'string' ? { pid, startTime } : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
