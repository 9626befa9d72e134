import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundleShim } from '../scripts/bundle.ts';
import { configureRuntime, type RuntimeLocation, removeConfiguration, requireAbsolute } from './configure.ts';
import { type ContainerdRelease, containerdRelease, detectContainerd } from './containerd-version.ts';
import { clusterManifests, snapshotterUnit } from './manifests.ts';
import type { Writer } from './record.ts';
import { startupSnapshotName, writeStartupSnapshot } from './startup-snapshot.ts';

/** Where the runtime is put, and what for. Every member has a default. */
export interface InstallOptions extends Partial<Omit<RuntimeLocation, 'hostRoot'>> {
  /** Version of the node's containerd, e.g. `1.7.24`; asked of `containerdBinary` where it is not given. */
  readonly containerdVersion?: string;
  readonly containerdBinary?: string;
  /** Prefix for programs. */
  readonly prefix?: string;
}

/** What was installed, and what the operator still has to do. */
export interface Installation {
  readonly release: ContainerdRelease;
  readonly shimPath: string;
  readonly fragmentPath: string;
  readonly manifestPath: string;
  readonly snapshotterUnitPath: string;
  /** Whether a file changed: containerd has to be restarted only then. */
  readonly changed: boolean;
}

function settings(options: InstallOptions): RuntimeLocation & { readonly prefix: string } {
  const merged = {
    prefix: options.prefix ?? '/opt/sealpod',
    hostRoot: '/',
    containerdConfigPath: options.containerdConfigPath ?? '/etc/containerd/config.toml',
    configDirectory: options.configDirectory ?? '/etc/sealpod',
    snapshotterSocket: options.snapshotterSocket ?? '/run/sealpod/snapshotter.sock',
    snapshotterRoot: options.snapshotterRoot ?? '/var/lib/sealpod/snapshotter',
    hypervisorSocket: options.hypervisorSocket ?? '/run/peerpod/hypervisor.sock',
  };
  requireAbsolute(merged);
  return merged;
}

/** Copies a fresh bundle of shim and snapshotter. */
async function bundleInto(library: string): Promise<(writer: Writer) => void> {
  const staging = mkdtempSync(join(tmpdir(), 'sealpod-bundle-'));
  try {
    const bundle = await bundleShim(staging);
    const files = readdirSync(staging).map((name) => {
      const executable = name === 'node' || join(staging, name) === bundle.shimPath;
      return { path: join(library, name), content: readFileSync(realpathSync(join(staging, name))), executable };
    });
    return (writer) => {
      for (const { path, content, executable } of files) writer.file(path, content, executable ? 0o755 : 0o644);
      writer.made(join(library, startupSnapshotName), writeStartupSnapshot);
    };
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/**
 * Installs the runtime on this node: programs under the prefix, configuration, containerd's fragment, a systemd unit for
 * the snapshotter and a RuntimeClass manifest. Doing it again changes nothing. Nothing is restarted.
 *
 * @throws SealpodError UNSUPPORTED for a containerd this release does not know, before anything is written.
 */
export async function installRuntime(options: InstallOptions = {}): Promise<Installation> {
  const release = containerdRelease(options.containerdVersion ?? (await detectContainerd(options.containerdBinary)));
  const at = settings(options);
  const library = join(at.prefix, 'lib');
  const shimPath = join(library, 'containerd-shim-sealpod-v2');
  const manifestPath = join(at.configDirectory, 'runtime-class.yaml');
  const snapshotterUnitPath = join(at.configDirectory, 'sealpod-snapshotter.service');
  const writePrograms = await bundleInto(library);
  const unit = snapshotterUnit(
    join(library, 'node'),
    join(library, 'snapshotter.mjs'),
    join(at.configDirectory, 'snapshotter.json'),
  );
  const { fragmentPath, changed } = configureRuntime(at, {
    release,
    shimPath,
    more: (writer) => {
      writePrograms(writer);
      writer.file(manifestPath, clusterManifests(release));
      writer.file(snapshotterUnitPath, unit);
    },
  });
  return { release, shimPath, fragmentPath, manifestPath, snapshotterUnitPath, changed };
}

/**
 * Removes what `installRuntime` with the same options created, and restores containerd's configuration byte by byte.
 * Nothing else is touched: a folder that holds other files stays.
 */
export function uninstallRuntime(options: InstallOptions = {}): void {
  removeConfiguration(settings(options));
}
