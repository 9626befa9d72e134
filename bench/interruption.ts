import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { killDescendants, killProcess, runningProcesses } from '@sealpod/processes';

const sealpod = fileURLToPath(new URL('../cli/bin/sealpod', import.meta.url));

/**
 * Ends what an interrupted run leaves: environments with their clusters and machines, processes that it started, others that
 * have its folder in their command line (shims outlive who started them), mounts in the folder, and the folder.
 */
export function removeTraces(scratch: string): void {
  killDescendants(new Set());
  for (const home of environmentsIn(scratch)) {
    // Where it fails it says so, and what follows ends the rest.
    const down = (...verb: readonly string[]) =>
      spawnSync(sealpod, ['--home', home, ...verb], { stdio: ['ignore', 'ignore', 'inherit'] });
    if (existsSync(join(home, 'cluster'))) down('cluster', 'down');
    down('down');
  }
  for (const { pid, arguments: words } of runningProcesses())
    if (words.some((word) => word.includes(scratch))) killProcess(pid);
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${scratch}/`));
  for (const path of mounts.reverse()) execFileSync('umount', ['-l', path]);
  rmSync(scratch, { recursive: true, force: true });
}

/** Homes of environments that were begun in a folder. */
function environmentsIn(scratch: string): string[] {
  return readdirSync(scratch, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(scratch, entry.name, 'state.json')))
    .map((entry) => join(scratch, entry.name));
}

/** On a signal that asks to end: removes the traces and ends with the signal's exit code. */
export function removeTracesOnSignal(scratch: string): void {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => {
      removeTraces(scratch);
      process.exit(code);
    });
  }
}
