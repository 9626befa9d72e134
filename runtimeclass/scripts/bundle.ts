import { chmodSync, copyFileSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** Where the parts of a bundle are. */
export interface ShimBundle {
  /** The binary for containerd's `runtime_path`. */
  readonly shimPath: string;
  /** Started as `node <path> --config <file>`. */
  readonly snapshotterPath: string;
  readonly nodePath: string;
}

const room = fileURLToPath(new URL('..', import.meta.url));

const common = {
  bundle: true,
  platform: 'node',
  target: 'node24',
  minify: true,
  keepNames: true,
  legalComments: 'none',
  logLevel: 'warning',
} as const;

/**
 * Bundles programs into `directory`, each to one file `<name>.mjs` without dependencies. Equal sources give equal bytes.
 *
 * @param entryPoints absolute path of each program's main module, by name
 */
export async function bundlePrograms(directory: string, entryPoints: Readonly<Record<string, string>>): Promise<void> {
  await build({
    ...common,
    entryPoints: { ...entryPoints },
    outdir: directory,
    outExtension: { '.js': '.mjs' },
    format: 'esm',
    // grpc-js and what it needs are CommonJS and load Node's own modules by require.
    banner: {
      js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);",
    },
  });
}

/**
 * Bundles shim and snapshotter into `directory`, each to one file without dependencies, beside the bootstrap script and
 * Node itself (a symbolic link to the one that runs now; the installer copies it).
 */
export async function bundleShim(directory: string): Promise<ShimBundle> {
  mkdirSync(directory, { recursive: true });
  await bundlePrograms(directory, { snapshotter: join(room, 'snapshotter/main.ts') });
  // Node makes its startup snapshots from CommonJS.
  const shim = { entryPoints: [join(room, 'shim/main.ts')], outfile: join(directory, 'shim.cjs') };
  await build({ ...common, ...shim, format: 'cjs' });
  const shimPath = join(directory, 'containerd-shim-sealpod-v2');
  copyFileSync(join(room, 'shim/bootstrap/containerd-shim-sealpod-v2'), shimPath);
  chmodSync(shimPath, 0o755);
  const nodePath = join(directory, 'node');
  rmSync(nodePath, { force: true });
  symlinkSync(process.execPath, nodePath);
  return { shimPath, snapshotterPath: join(directory, 'snapshotter.mjs'), nodePath };
}
