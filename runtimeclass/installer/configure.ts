import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { parse } from 'smol-toml';
import { runtimeFragment, runtimeName } from './containerd-config.ts';
import { withImport, withoutImport } from './containerd-import.ts';
import type { ContainerdRelease } from './containerd-version.ts';
import { readRecord, removeRecorded, Writer } from './record.ts';

/** Where the parts of the runtime are on a host. Paths are absolute, and the host's own. */
export interface RuntimeLocation {
  /** Where the host's root is mounted; `/` on the host itself. */
  readonly hostRoot: string;
  /** Where containerd's configuration is; the fragment goes beside it, into `conf.d`. */
  readonly containerdConfigPath: string;
  /** Folder of the shim's and the snapshotter's configuration, and of the record of what was created. */
  readonly configDirectory: string;
  readonly snapshotterSocket: string;
  readonly snapshotterRoot: string;
  /** Socket of the adaptor, written into the shim's configuration. */
  readonly hypervisorSocket: string;
}

/** Files that were written, and what follows from it. */
export interface Configured {
  readonly fragmentPath: string;
  readonly snapshotterConfigPath: string;
  /** Whether any file changed. */
  readonly changed: boolean;
  /** Whether containerd has to read its configuration again. */
  readonly containerdChanged: boolean;
}

export interface ConfigureOptions {
  readonly release: ContainerdRelease;
  /** The shim's program, as containerd starts it. */
  readonly shimPath: string;
  /** Members of the shim's configuration beside the adaptor's socket. */
  readonly shim?: Readonly<Record<string, unknown>>;
  /** Writes what else belongs to the installation and has to go with it. */
  readonly more?: (writer: Writer) => void;
}

/** @throws SealpodError USAGE for a path that is not absolute */
export function requireAbsolute(paths: Readonly<Record<string, string>>): void {
  for (const [name, path] of Object.entries(paths)) {
    if (path !== resolve(path)) {
      throw new SealpodError('USAGE', `${name} must be an absolute path`, { expected: resolve(path), actual: path });
    }
  }
}

const fragmentPath = ({ containerdConfigPath }: RuntimeLocation): string =>
  join(dirname(containerdConfigPath), 'conf.d', `${runtimeName}.toml`);

const recordPath = ({ configDirectory }: RuntimeLocation): string => join(configDirectory, 'installed.json');

const json = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

/** Paths of what containerd reads: its configuration and the fragment. */
export function containerdFiles(at: RuntimeLocation): readonly string[] {
  return [at.containerdConfigPath, fragmentPath(at)];
}

/**
 * Writes the configuration of shim and snapshotter, and containerd's fragment with the import of it. Doing it again
 * changes nothing. Nothing is restarted.
 *
 * @throws SealpodError UNSUPPORTED, REQUEST_FORMAT where containerd's configuration cannot be extended; nothing is written then
 */
export function configureRuntime(at: RuntimeLocation, options: ConfigureOptions): Configured {
  const { release, shimPath } = options;
  const record = readRecord(at.hostRoot, recordPath(at));
  const writer = new Writer(at.hostRoot, record);
  const fragment = fragmentPath(at);
  const configuration = join(at.hostRoot, at.containerdConfigPath);
  const configured = existsSync(configuration);
  const before = configured ? readFileSync(configuration, 'utf8') : '';
  const after = withImport(before, join(dirname(fragment), '*.toml'), release, at.containerdConfigPath);
  const runtimeConfigPath = join(at.configDirectory, 'shim.json');
  const snapshotterConfigPath = join(at.configDirectory, 'snapshotter.json');
  writer.file(runtimeConfigPath, json({ ...options.shim, hypervisorSocket: at.hypervisorSocket }));
  writer.file(snapshotterConfigPath, json({ socket: at.snapshotterSocket, root: at.snapshotterRoot }));
  options.more?.(writer);
  const { snapshotterSocket, snapshotterRoot } = at;
  const paths = { shimPath, runtimeConfigPath, snapshotterSocket, snapshotterRoot };
  let containerdChanged = writer.file(fragment, runtimeFragment(paths, release, parse(before)));
  if (after !== before) {
    writer.directory(dirname(at.containerdConfigPath));
    writeFileSync(configuration, after);
    if (!configured) record.createdConfiguration = true;
    writer.changed = true;
    containerdChanged = true;
  }
  if (writer.changed) writeFileSync(join(at.hostRoot, recordPath(at)), json(record));
  return { fragmentPath: fragment, snapshotterConfigPath, changed: writer.changed, containerdChanged };
}

/**
 * Removes what `configureRuntime` with the same location created, and restores containerd's configuration byte by byte.
 * Nothing else is touched: a folder that holds other files stays.
 *
 * @returns whether there was anything: containerd has to be restarted only then
 */
export function removeConfiguration(at: RuntimeLocation): boolean {
  const recorded = join(at.hostRoot, recordPath(at));
  if (!existsSync(recorded)) return false;
  const record = readRecord(at.hostRoot, recordPath(at));
  const configuration = join(at.hostRoot, at.containerdConfigPath);
  if (existsSync(configuration)) {
    const text = readFileSync(configuration, 'utf8');
    const without = withoutImport(text);
    if (record.createdConfiguration && without === '') rmSync(configuration);
    else if (without !== text) writeFileSync(configuration, without);
  }
  rmSync(recorded);
  removeRecorded(at.hostRoot, record);
  return true;
}
