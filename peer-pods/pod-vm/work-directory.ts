import { readlinkSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identityOf, killProcess, runningProcesses } from '@sealpod/processes';

/** What a work directory is for; its first word, before the number of the process that made it. */
export type WorkPurpose = 'build' | 'alter' | 'download' | 'sealpod-calibration' | 'sealpod-measure';

/** Where calibration and measurement work: QEMU's unprivileged user has to reach it. */
export const temporaryWork = { parent: tmpdir, purposes: ['sealpod-calibration', 'sealpod-measure'] } as const;

/**
 * Makes `<parent>/<purpose>-<process id>-<random>`, private to this user, after removing what processes that were
 * killed left there for the same purpose. The caller removes it at its end.
 */
export async function makeWorkDirectory(parent: string, purpose: WorkPurpose): Promise<string> {
  await removeAbandonedWork(parent, [purpose]);
  return mkdtemp(join(parent, `${purpose}-${process.pid}-`));
}

/** Removes work directories whose maker is gone, and ends what it started in them and still runs. */
export async function removeAbandonedWork(parent: string, purposes: readonly WorkPurpose[]): Promise<void> {
  const names = await readdir(parent).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    const [, purpose, maker] = /^([a-z-]+)-(\d+)-[A-Za-z0-9]{6}$/.exec(name) ?? [];
    if (maker === undefined || !purposes.some((known) => known === purpose)) continue;
    if (identityOf(Number(maker)) !== undefined) continue;
    const directory = join(parent, name);
    endProcessesIn(directory);
    await rm(directory, { recursive: true, force: true });
  }
}

/** Kills what works in the directory, or names a file of it: nobody else knows its random name. */
function endProcessesIn(directory: string): void {
  for (const { pid, arguments: words } of runningProcesses()) {
    const isWithin = workingDirectoryOf(pid)?.startsWith(directory) === true;
    if (isWithin || words.some((word) => word.includes(directory))) killProcess(pid);
  }
}

function workingDirectoryOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    // Gone, or another user's: not ours to end.
    return undefined;
  }
}
