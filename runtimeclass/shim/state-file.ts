import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';

/**
 * What is needed to clean up after a shim that was killed. Written before its socket exists, again before its machine is
 * asked for and after that is gone, and removed with the socket.
 */
export interface PodState {
  readonly version: 1;
  readonly id: string;
  readonly pid: number;
  readonly bundle: string;
  /** The adaptor that was asked for a machine; empty where none was, or it is stopped. */
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

/** The state of a shim, or nothing where none began here, or it has ended in order. */
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

/** Removes the socket and then the state, which would be missed if the socket were left. */
export function removeTraces(socketPath: string): void {
  rmSync(socketPath, { force: true });
  for (const path of [`${statePath(socketPath)}.new`, statePath(socketPath)]) rmSync(path, { force: true });
}
