import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { run } from './run.ts';

/** A kernel module as it is loaded: its file name and its uncompressed content. */
export interface KernelModule {
  readonly name: string;
  readonly content: Buffer;
}

export interface Kernel {
  /** Release, as `uname -r` says it. */
  readonly release: string;
  /** Its path in the unpacked packages. */
  readonly path: string;
  /** The bzImage. */
  readonly image: Buffer;
  /** Modules in the order in which they must be loaded. */
  readonly modules: readonly KernelModule[];
}

/**
 * What the guest needs beyond what is built in. There is no module loader in the root file system, so all of it is
 * loaded by the initrd: the disk and its integrity, the agent's channel, the network, what containers are made of, and
 * volumes with their encryption.
 */
const wantedModules = [
  'virtio_pci',
  'virtio_blk',
  'dm-verity',
  'erofs',
  'virtio_console',
  'virtio_net',
  'overlay',
  'virtio_scsi',
  'sd_mod',
  'dm-crypt',
  'xts',
  'algif_skcipher',
  'aesni-intel',
] as const;

/**
 * Takes kernel and modules out of an unpacked `linux-image` package.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where the package holds no single kernel.
 */
export async function readKernel(packagesRoot: string): Promise<Kernel> {
  const images = (await readdir(join(packagesRoot, 'boot'))).filter((name) => name.startsWith('vmlinuz-'));
  const [name] = images;
  if (name === undefined || images.length !== 1) {
    throw new SealpodError('PROVIDER_IMAGE', 'the kernel package holds no single kernel', { actual: images.join(' ') });
  }
  const release = name.slice('vmlinuz-'.length);
  const files = await moduleFiles(packagesRoot, release);
  const configuration = await readFile(join(packagesRoot, 'boot', `config-${release}`), 'utf8');
  const ordered = new Map<string, KernelModule>();
  for (const wanted of wantedModules) await addModule(wanted, files, ordered, configuration);
  return {
    release,
    path: `boot/${name}`,
    image: await readFile(join(packagesRoot, 'boot', name)),
    modules: [...ordered.values()],
  };
}

/** Module name (with `_` for `-`, as the kernel compares them) → file. Debian 13 compresses modules with xz. */
async function moduleFiles(packagesRoot: string, release: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const base of ['lib/modules', 'usr/lib/modules']) {
    const directory = join(packagesRoot, base, release);
    const names = await readdir(directory, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    for (const name of names) {
      const match = /^(.+)\.ko(\.xz)?$/.exec(basename(name));
      if (match?.[1] !== undefined) files.set(match[1].replaceAll('-', '_'), join(directory, name));
    }
  }
  return files;
}

/** Built-in options that make a module of the list unnecessary, should a later kernel have them. */
const builtInOptions: Readonly<Record<string, string>> = {
  virtio_pci: 'CONFIG_VIRTIO_PCI',
  virtio_blk: 'CONFIG_VIRTIO_BLK',
  'dm-verity': 'CONFIG_DM_VERITY',
  erofs: 'CONFIG_EROFS_FS',
  virtio_console: 'CONFIG_VIRTIO_CONSOLE',
  virtio_net: 'CONFIG_VIRTIO_NET',
  overlay: 'CONFIG_OVERLAY_FS',
  virtio_scsi: 'CONFIG_SCSI_VIRTIO',
  sd_mod: 'CONFIG_BLK_DEV_SD',
  'dm-crypt': 'CONFIG_DM_CRYPT',
  xts: 'CONFIG_CRYPTO_XTS',
  algif_skcipher: 'CONFIG_CRYPTO_USER_API_SKCIPHER',
  'aesni-intel': 'CONFIG_CRYPTO_AES_NI_INTEL',
};

async function addModule(
  name: string,
  files: ReadonlyMap<string, string>,
  ordered: Map<string, KernelModule>,
  configuration: string,
): Promise<void> {
  const key = name.replaceAll('-', '_');
  if (ordered.has(key)) return;
  const file = files.get(key);
  if (file === undefined) {
    const option = builtInOptions[name];
    if (option !== undefined && configuration.includes(`\n${option}=y\n`)) return;
    throw new SealpodError('PROVIDER_IMAGE', `the kernel has no module ${name}`);
  }
  const content = file.endsWith('.xz') ? await run('xz', ['--decompress', '--stdout', file]) : await readFile(file);
  for (const dependency of moduleDependencies(content)) await addModule(dependency, files, ordered, configuration);
  ordered.set(key, { name: `${key}.ko`, content });
}

/** The `depends=` list of a module's .modinfo section. */
function moduleDependencies(content: Buffer): string[] {
  const start = content.indexOf('\0depends=');
  if (start < 0) return [];
  const end = content.indexOf(0, start + 1);
  return content
    .toString('latin1', start + '\0depends='.length, end)
    .split(',')
    .filter((name) => name !== '');
}
