import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { SealpodError } from '@sealpod/protocol/errors';

const execute = promisify(execFile);
const mountTimeoutMs = 30_000;

/** A writable view of a read-only root file system. All paths are absolute. */
export interface OverlayMount {
  readonly lower: string;
  readonly upper: string;
  readonly work: string;
  readonly target: string;
}

/** Mounts a container's root file system. */
export interface OverlayMounter {
  mount(overlay: OverlayMount): Promise<void>;
  unmount(target: string): Promise<void>;
}

/** Mounts overlayfs with the `mount` and `umount` programs. */
export function createOverlayMounter(
  programs: { readonly mount?: string; readonly umount?: string } = {},
): OverlayMounter {
  const { mount = 'mount', umount = 'umount' } = programs;
  return {
    async mount({ lower, upper, work, target }) {
      const options = [
        ['lowerdir', lower],
        ['upperdir', upper],
        ['workdir', work],
      ].map(([name, path = '']) => `${name}=${escapeOption(path)}`);
      await run(mount, ['-t', 'overlay', 'overlay', '-o', options.join(','), target]);
    },
    async unmount(target) {
      await run(umount, [target]);
    },
  };
}

/** overlayfs splits its options at `,` and lower directories at `:`. */
function escapeOption(path: string): string {
  return path.replace(/[\\,:]/g, (character) => `\\${character}`);
}

async function run(program: string, args: readonly string[]): Promise<void> {
  try {
    await execute(program, [...args], { timeout: mountTimeoutMs });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.replace(/\s+/g, ' ').slice(0, 400) : String(cause);
    throw new SealpodError('IMG_UNPACK', `root file system cannot be mounted: ${reason}`, { cause });
  }
}
