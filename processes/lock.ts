import { randomUUID } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { identityOf, isRunning, type ProcessIdentity } from './identity.ts';

const pollMs = 200;
const turnPollMs = 10;

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
  // Linked into its place when it is whole: nobody ever reads a lock that is still being written.
  const own = `${path}.${process.pid}.${randomUUID()}`;
  await writeFile(own, JSON.stringify(identity), { mode: 0o600, flag: 'wx' });
  try {
    for (;;) {
      if (await linked(own, path)) return { release: () => rm(path, { force: true }) };
      const holder = await holderOf(path);
      if (holder === 'nobody') continue;
      if (holder !== 'ended') return holder;
      await removeLeftLock(own, path);
    }
  } finally {
    await rm(own, { force: true });
  }
}

/**
 * Removes the lock of a process that has ended. One remover at a time, and only what that one has seen to be left: it must not
 * take away what another has put there since. Not so where a remover ends within its turn and several find the turn left behind at
 * the same moment: POSIX can remove a file only by name.
 */
async function removeLeftLock(own: string, path: string): Promise<void> {
  const turn = `${path}.turn`;
  if (!(await linked(own, turn))) {
    // A process that ends within its turn leaves it behind.
    if ((await holderOf(turn)) === 'ended') await rm(turn, { force: true });
    else await delay(turnPollMs);
    return;
  }
  try {
    if ((await holderOf(path)) === 'ended') await rm(path, { force: true });
  } finally {
    await rm(turn, { force: true });
  }
}

/** Whether `target` is now `source`; not where there is one already. */
async function linked(source: string, target: string): Promise<boolean> {
  return link(source, target).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false;
      throw error;
    },
  );
}

/** The running process that holds a lock; `ended` where it runs no more or the file says nothing of use. */
async function holderOf(path: string): Promise<ProcessIdentity | 'nobody' | 'ended'> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof value !== 'object' || value === null) return 'ended';
    const { pid, startTime } = value as Record<string, unknown>;
    if (typeof pid !== 'number' || typeof startTime !== 'string') return 'ended';
    return isRunning({ pid, startTime }) ? { pid, startTime } : 'ended';
  } catch (error) {
    if (error instanceof SyntaxError) return 'ended';
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'nobody';
    throw error;
  }
}
