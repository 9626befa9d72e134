import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { killDescendants, killProcess, runningProcesses } from '@sealpod/processes';

/**
 * Ends what an interrupted run leaves: processes that it started, others that have its folder in their command line
 * (shims outlive who started them), mounts in the folder, and the folder.
 */
export function removeTraces(scratch: string): void {
  killDescendants(new Set());
  for (const { pid, arguments: words } of runningProcesses())
    if (words.some((word) => word.includes(scratch))) killProcess(pid);
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${scratch}/`));
  for (const path of mounts.reverse()) execFileSync('umount', ['-l', path]);
  rmSync(scratch, { recursive: true, force: true });
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
