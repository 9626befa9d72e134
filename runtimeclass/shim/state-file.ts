import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';

/** What is needed to stop a pod's machine when its shim was killed. Written before the machine is asked for. */
export interface PodState {
  readonly version: 1;
  readonly id: string;
  readonly pid: number;
  readonly bundle: string;
  readonly hypervisorSocket: string;
}

/** The state file stands beside the shim's socket, outside the bundle: it outlives both. */
export function statePath(socketPath: string): string {
  return `${socketPath}.json`;
}

export function writeState(socketPath: string, state: PodState): void {
  const path = statePath(socketPath);
  writeFileSync(`${path}.new`, JSON.stringify(state), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** The state of a pod, or nothing where no machine was ever asked for, or it is stopped. */
export function readState(path: string): PodState | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw thrown;
  }
  const state = JSON.parse(text) as PodState;
  if (state.version !== 1) throw new Error(`${path} is of another release: version ${state.version}`);
  return state;
}

export function removeState(socketPath: string): void {
  rmSync(statePath(socketPath), { force: true });
}
