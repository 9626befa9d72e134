import { execFileSync } from 'node:child_process';
import { chmodSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

/** Name of the shim's startup snapshot, beside the shim. The bootstrap script starts without one, too, only slower. */
export const startupSnapshotName = 'shim.blob';

/**
 * Writes the heap of a shim that has loaded its modules. It is made on the machine that uses it: Node refuses one of
 * another build of itself, and one made on a processor with other features.
 *
 * @param path in the folder that holds `node` and `shim.cjs`
 * @throws SealpodError INTERNAL with what Node said; no file is left then
 */
export function writeStartupSnapshot(path: string): void {
  const library = dirname(path);
  const next = `${path}.new`;
  try {
    const args = ['--snapshot-blob', next, '--build-snapshot', join(library, 'shim.cjs')];
    execFileSync(join(library, 'node'), args, { env: {}, stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 });
    chmodSync(next, 0o644);
    renameSync(next, path);
  } catch (cause) {
    rmSync(next, { force: true });
    rmSync(path, { force: true });
    throw new SealpodError('INTERNAL', `no startup snapshot can be made in ${library}`, { cause });
  }
}
