import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { readState, statePath } from './state-file.ts';

/** Where containerd has shims put their sockets, whatever its own state directory. */
export const shimSocketDirectory = '/run/containerd/s';

/**
 * Removes sockets and state files of shims whose bundles lie below `bundlesDirectory`, of which none may run. For a
 * containerd that is gone for good: with its bundles would go the last that tells these files from another's.
 */
export function removeShimTraces(bundlesDirectory: string, socketDirectory = shimSocketDirectory): void {
  for (const path of shimTraces(bundlesDirectory, socketDirectory)) rmSync(path, { force: true });
}

/** Paths of the sockets and state files that `removeShimTraces` removes. */
export function shimTraces(bundlesDirectory: string, socketDirectory = shimSocketDirectory): string[] {
  return entries(socketDirectory).flatMap((name) => {
    const [, socketName] = /^([0-9a-f]{64})\.json$/.exec(name) ?? [];
    if (socketName === undefined) return [];
    const socketPath = join(socketDirectory, socketName);
    const state = readState(statePath(socketPath));
    return state?.bundle.startsWith(`${bundlesDirectory}/`) === true ? [socketPath, statePath(socketPath)] : [];
  });
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
