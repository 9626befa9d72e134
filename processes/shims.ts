import { type RunningProcess, runningProcesses } from './table.ts';

/**
 * The shims of a containerd, whichever runtime's: the socket of their containerd stands behind the flag `-address` of their
 * command line (containerd runtime v2 README).
 */
export function shimsOf(containerdSocket: string): RunningProcess[] {
  return runningProcesses().filter(({ arguments: words }) =>
    words.some((word, at) => word === '-address' && words[at + 1] === containerdSocket),
  );
}
