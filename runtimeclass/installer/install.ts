import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { parse } from 'smol-toml';
import { bundleShim } from '../scripts/bundle.ts';
import { runtimeFragment, runtimeName } from './containerd-config.ts';
import { type ContainerdRelease, containerdRelease, detectContainerd } from './containerd-version.ts';
import { clusterManifests, snapshotterUnit } from './manifests.ts';

/** Where the runtime is put. Paths are absolute; tests give their own `hostRoot`. */
export interface InstallOptions {
  /** Version of the node's containerd, e.g. `1.7.24`; asked of `containerdBinary` where it is not given. */
  readonly containerdVersion?: string;
  readonly containerdBinary?: string;
  /** Prefix for programs. */
  readonly prefix?: string;
  /** Where containerd's configuration is; the fragment goes beside it, into `conf.d`. */
  readonly containerdConfigPath?: string;
  /** Folder of the shim's and the snapshotter's configuration, and of the RuntimeClass manifest. */
  readonly configDirectory?: string;
  readonly snapshotterSocket?: string;
  readonly snapshotterRoot?: string;
  /** Socket of the adaptor, written into the shim's configuration. */
  readonly hypervisorSocket?: string;
}

type Settings = Required<Omit<InstallOptions, 'containerdVersion' | 'containerdBinary'>>;

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

const importsMark = '# sealpod: imports its runtime; removed by its installer';

function settings(options: InstallOptions): Settings {
  const merged: Settings = {
    prefix: options.prefix ?? '/opt/sealpod',
    containerdConfigPath: options.containerdConfigPath ?? '/etc/containerd/config.toml',
    configDirectory: options.configDirectory ?? '/etc/sealpod',
    snapshotterSocket: options.snapshotterSocket ?? '/run/sealpod/snapshotter.sock',
    snapshotterRoot: options.snapshotterRoot ?? '/var/lib/sealpod/snapshotter',
    hypervisorSocket: options.hypervisorSocket ?? '/run/peerpod/hypervisor.sock',
  };
  for (const [name, path] of Object.entries(merged)) {
    if (path !== resolve(path)) {
      throw new SealpodError('USAGE', `${name} must be an absolute path`, { expected: resolve(path), actual: path });
    }
  }
  return merged;
}

const fragmentPath = ({ containerdConfigPath }: Settings): string =>
  join(dirname(containerdConfigPath), 'conf.d', `${runtimeName}.toml`);

/** A record of what was created, so that removal takes away that and nothing else. */
interface InstallRecord {
  readonly files: string[];
  readonly directories: string[];
  /** containerd's configuration did not exist before. */
  createdConfiguration: boolean;
}

const recordPath = ({ configDirectory }: Settings): string => join(configDirectory, 'installed.json');

function readRecord(at: Settings): InstallRecord {
  if (!existsSync(recordPath(at))) return { files: [], directories: [], createdConfiguration: false };
  return JSON.parse(readFileSync(recordPath(at), 'utf8')) as InstallRecord;
}

class Writer {
  changed = false;
  readonly #record: InstallRecord;

  constructor(record: InstallRecord) {
    this.#record = record;
  }

  directory(path: string): void {
    if (existsSync(path)) return;
    this.directory(dirname(path));
    mkdirSync(path, { mode: 0o755 });
    this.#record.directories.push(path);
    this.changed = true;
  }

  file(path: string, content: string | Buffer, mode = 0o644): void {
    this.directory(dirname(path));
    if (!this.#record.files.includes(path)) this.#record.files.push(path);
    const same =
      existsSync(path) && readFileSync(path).equals(Buffer.from(content)) && (statSync(path).mode & 0o777) === mode;
    if (same) return;
    writeFileSync(path, content, { mode });
    chmodSync(path, mode);
    this.changed = true;
  }
}

/**
 * containerd's configuration with an import of the fragment's folder. The text before is kept as it is; removal restores
 * it byte by byte.
 *
 * @throws SealpodError UNSUPPORTED when the file has imports of its own that do not cover the folder, or another version.
 */
export function withImport(text: string, pattern: string, release: ContainerdRelease, path: string): string {
  let parsed: Record<string, unknown>;
  try {
    parsed = parse(text);
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', `${path} is no TOML`, { cause });
  }
  const imports = parsed['imports'];
  if (Array.isArray(imports) && imports.includes(pattern)) return text;
  if (imports !== undefined) {
    throw new SealpodError('UNSUPPORTED', `${path} has imports of its own`, {
      expected: pattern,
      actual: JSON.stringify(imports),
      fix: `add ${JSON.stringify(pattern)} to them and install again`,
    });
  }
  const version = parsed['version'];
  if (version !== undefined && version !== 2 && !(version === 3 && release === '2')) {
    throw new SealpodError('UNSUPPORTED', `${path} is of configuration version ${String(version)}`, {
      expected: release === '2' ? '2 or 3' : '2',
      actual: String(version),
    });
  }
  // Keys of the root table have to come before the first table.
  const added = `imports = [${JSON.stringify(pattern)}] ${importsMark}\n`;
  const versioned = version === undefined ? `version = ${release === '2' ? 3 : 2} ${importsMark}\n` : '';
  return `${added}${versioned}${text}`;
}

/** The text as it was before `withImport`. */
export function withoutImport(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.endsWith(importsMark))
    .join('\n');
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
  const record = readRecord(at);
  const writer = new Writer(record);
  const fragment = fragmentPath(at);
  const pattern = join(dirname(fragment), '*.toml');
  const configured = existsSync(at.containerdConfigPath);
  const before = configured ? readFileSync(at.containerdConfigPath, 'utf8') : '';
  const after = withImport(before, pattern, release, at.containerdConfigPath);

  const library = join(at.prefix, 'lib');
  const staging = mkdtempSync(join(tmpdir(), 'sealpod-bundle-'));
  try {
    const bundle = await bundleShim(staging);
    for (const name of readdirSync(staging)) {
      const source = realpathSync(join(staging, name));
      const executable = name === 'node' || join(staging, name) === bundle.shimPath;
      writer.file(join(library, name), readFileSync(source), executable ? 0o755 : 0o644);
    }
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  const shimPath = join(library, 'containerd-shim-sealpod-v2');
  const runtimeConfigPath = join(at.configDirectory, 'shim.json');
  const snapshotterConfigPath = join(at.configDirectory, 'snapshotter.json');
  const json = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;
  writer.file(runtimeConfigPath, json({ hypervisorSocket: at.hypervisorSocket }));
  writer.file(snapshotterConfigPath, json({ socket: at.snapshotterSocket, root: at.snapshotterRoot }));
  const manifestPath = join(at.configDirectory, 'runtime-class.yaml');
  writer.file(manifestPath, clusterManifests());
  const snapshotterUnitPath = join(at.configDirectory, 'sealpod-snapshotter.service');
  writer.file(
    snapshotterUnitPath,
    snapshotterUnit(join(library, 'node'), join(library, 'snapshotter.mjs'), snapshotterConfigPath),
  );
  writer.file(
    fragment,
    runtimeFragment(
      { shimPath, runtimeConfigPath, snapshotterSocket: at.snapshotterSocket, snapshotterRoot: at.snapshotterRoot },
      release,
      parse(before),
    ),
  );
  if (after !== before) {
    writer.directory(dirname(at.containerdConfigPath));
    writeFileSync(at.containerdConfigPath, after);
    if (!configured) record.createdConfiguration = true;
    writer.changed = true;
  }
  if (writer.changed) writeFileSync(recordPath(at), json(record));
  return { release, shimPath, fragmentPath: fragment, manifestPath, snapshotterUnitPath, changed: writer.changed };
}

/**
 * Removes what `installRuntime` with the same options created, and restores containerd's configuration byte by byte.
 * Nothing else is touched: a folder that holds other files stays.
 */
export function uninstallRuntime(options: InstallOptions = {}): void {
  const at = settings(options);
  if (!existsSync(recordPath(at))) return;
  const record = readRecord(at);
  if (existsSync(at.containerdConfigPath)) {
    const text = withoutImport(readFileSync(at.containerdConfigPath, 'utf8'));
    if (record.createdConfiguration && text === '') rmSync(at.containerdConfigPath);
    else if (text !== readFileSync(at.containerdConfigPath, 'utf8')) writeFileSync(at.containerdConfigPath, text);
  }
  for (const path of record.files) rmSync(path, { force: true });
  rmSync(recordPath(at));
  for (const path of [...record.directories].reverse()) {
    if (existsSync(path) && readdirSync(path).length === 0) rmdirSync(path);
  }
}
