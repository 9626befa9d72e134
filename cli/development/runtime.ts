import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundleShim, type ShimBundle } from '@sealpod/runtimeclass/bundle';
import { startupSnapshotName, writeStartupSnapshot } from '@sealpod/runtimeclass/installer';
import type { Layout } from './layout.ts';

/** Bundles shim and snapshotter of this source tree into the environment. */
export async function bundleRuntime(layout: Layout): Promise<ShimBundle> {
  const directory = join(layout.home, 'runtime');
  const bundle = await bundleShim(directory);
  writeStartupSnapshot(join(directory, startupSnapshotName));
  return bundle;
}

/** Writes the shim's configuration; returns its path. */
export function writeShimConfiguration(layout: Layout, hypervisorSocket: string): string {
  const file = join(layout.home, 'shim.json');
  // Pods of the environment may choose among the images that the adaptor knows.
  const enabledAnnotations = ['machine_type', 'default_vcpus', 'default_memory', 'cc_init_data', 'image'];
  writeFileSync(file, `${JSON.stringify({ hypervisorSocket, enabledAnnotations }, null, 2)}\n`, { mode: 0o600 });
  return file;
}

/** containerd's release line, `1.6`, `1.7` or `2`. */
export function containerdRelease(): '1.6' | '1.7' | '2' {
  const text = execFileSync('containerd', ['--version'], { encoding: 'utf8' });
  const [, major = '1', minor = '6'] = /\bv?(\d+)\.(\d+)\.\d+/.exec(text) ?? [];
  if (Number(major) >= 2) return '2';
  return minor === '6' ? '1.6' : '1.7';
}

/** Tells containerd that the environment's registry speaks plain HTTP; returns the folder of such files. */
export function writeRegistryHosts(layout: Layout, registry: string): string {
  const directory = join(layout.home, 'registries');
  mkdirSync(join(directory, registry), { recursive: true, mode: 0o700 });
  writeFileSync(
    join(directory, registry, 'hosts.toml'),
    `server = "http://${registry}"\n[host."http://${registry}"]\n  capabilities = ["pull", "resolve"]\n`,
  );
  return directory;
}
