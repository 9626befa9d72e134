import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

const file = '/run/sealpod/cluster';
/** So long after the machine was taken nothing has to run yet: the first programs are being started. */
const startingMs = 60_000;

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
    try {
      writeFileSync(file, directory, { flag: 'wx' });
      return;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    }
    const other = holder();
    if (other === directory) return;
    if (other !== undefined && (justTaken() || runs(other))) {
      throw new SealpodError('UNSUPPORTED', 'another cluster runs on this machine', {
        expected: 'one cluster at a time: their Services would have the same packet filter table',
        actual: other,
        fix: 'end it with `sealpod cluster down`, with the --home it was started with',
      });
    }
    rmSync(file, { force: true });
  }
}

/** Gives the machine back, where the cluster in `directory` has it. */
export function releaseMachine(directory: string): void {
  if (holder() === directory) rmSync(file, { force: true });
}

function justTaken(): boolean {
  const taken = statSync(file, { throwIfNoEntry: false })?.mtimeMs;
  return taken !== undefined && Date.now() - taken < startingMs;
}

function holder(): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
