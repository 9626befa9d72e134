import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { identityOf, isRunning, type ProcessIdentity } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';

const file = '/run/sealpod/cluster';
/** Who takes the machine, for as long as nothing of its cluster runs yet. */
const starterFile = '/run/sealpod/cluster-starter';

/**
 * Takes the machine for the cluster in `directory`: the rules of Services are in one table of the kernel, whose name is
 * kube-proxy's own, so two clusters would undo each other's.
 *
 * @param runs whether the cluster in a directory runs
 * @throws SealpodError UNSUPPORTED where another one runs
 */
export function takeMachine(directory: string, runs: (other: string) => boolean): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
  for (;;) {
    const other = holder();
    // Whoever took it a moment ago may have nothing running yet.
    if (other !== undefined && other !== directory && (isStarting() || runs(other))) {
      throw new SealpodError('UNSUPPORTED', 'another cluster runs on this machine', {
        expected: 'one cluster at a time: their Services would have the same packet filter table',
        actual: other,
        fix: 'end it with `sealpod cluster down`, with the --home it was started with',
      });
    }
    if (other !== undefined) rmSync(file, { force: true });
    try {
      writeFileSync(file, directory, { flag: 'wx' });
      writeFileSync(starterFile, JSON.stringify(identityOf(process.pid)));
      return;
    } catch (error) {
      // Another was faster.
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    }
  }
}

/** Gives the machine back, where the cluster in `directory` has it. */
export function releaseMachine(directory: string): void {
  if (holder() !== directory) return;
  rmSync(starterFile, { force: true });
  rmSync(file, { force: true });
}

function holder(): string | undefined {
  return read(file);
}

function isStarting(): boolean {
  const starter = read(starterFile);
  return starter !== undefined && isRunning(JSON.parse(starter) as ProcessIdentity);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
