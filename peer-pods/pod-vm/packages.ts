import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { run } from './run.ts';
import { makeWorkDirectory } from './work-directory.ts';

/** One Debian package as the machine's signed package lists name it. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** Size of the .deb in bytes. */
  readonly size: number;
  /** SHA-256 of the .deb, hex. */
  readonly sha256: string;
}

/** Which packages are wanted, by Debian's names. */
export interface PackageSelection {
  /** Names the record of what was resolved, so that selections share a cache. */
  readonly name: string;
  /** Whether the concrete kernel behind its meta package is wanted. */
  readonly kernel: boolean;
  /** Packages that bring files of their own only. */
  readonly standalone: readonly string[];
  /** Packages whose programs are linked against libraries of other packages, which are taken along. */
  readonly linked: readonly string[];
}

/** The meta package that depends on the current cloud kernel. */
const kernelPackage = 'linux-image-cloud-amd64';

/** What the pod VM image is made of. */
const podVmPackages: PackageSelection = {
  name: 'resolution',
  kernel: true,
  standalone: ['systemd-boot-efi', 'busybox-static'],
  linked: [
    'coreutils',
    'crun',
    'cryptsetup-bin',
    'dmsetup',
    'e2fsprogs',
    'iproute2',
    'libc6',
    'libgcc-s1',
    'libstdc++6',
    'mount',
    'tini',
  ],
};

const listsDirectory = '/var/lib/apt/lists';

/**
 * Resolves the packages of the pod VM image, or of another selection, against this machine's package lists and brings
 * their files into `cacheDirectory`; no root needed. What is in the cache with the right digest is not downloaded again,
 * and while the lists do not change they are not read again.
 *
 * @throws SealpodError `PREREQUISITE` where the lists do not know a package or a download fails.
 */
export async function fetchPackages(
  cacheDirectory: string,
  selection: PackageSelection = podVmPackages,
): Promise<DebianPackage[]> {
  const directory = join(cacheDirectory, 'packages');
  await mkdir(directory, { recursive: true });
  const fingerprint = await listsFingerprint();
  const resolutionFile = join(directory, `${selection.name}.json`);
  const known = await readResolution(resolutionFile);
  const packages = known?.fingerprint === fingerprint ? known.packages : await resolvePackages(selection);
  const missing: DebianPackage[] = [];
  for (const item of packages) if (!(await isPresent(packageFile(cacheDirectory, item), item))) missing.push(item);
  if (missing.length > 0) await download(cacheDirectory, missing);
  if (packages !== known?.packages) await writeFile(resolutionFile, JSON.stringify({ fingerprint, packages }, null, 1));
  return packages;
}

/** Where the cache keeps a package: by digest, so that one name and version from two archives cannot be confused. */
export function packageFile(cacheDirectory: string, item: DebianPackage): string {
  return join(cacheDirectory, 'packages', `${item.name}_${item.sha256.slice(0, 16)}.deb`);
}

/**
 * Unpacks packages into `target`, in order, and says which package brought which path. Needs no root: owners are the
 * caller's.
 */
export async function extractPackages(
  cacheDirectory: string,
  packages: readonly DebianPackage[],
  target: string,
): Promise<Map<string, DebianPackage>> {
  await mkdir(target, { recursive: true });
  const origins = new Map<string, DebianPackage>();
  for (const item of packages) {
    const listing = await run('dpkg-deb', ['--vextract', packageFile(cacheDirectory, item), target]);
    for (const path of listing.toString('utf8').split('\n')) {
      if (path.startsWith('./') && !path.endsWith('/')) origins.set(path.slice(2), item);
    }
  }
  return origins;
}

/** Changes whenever `apt-get update` brought other lists, and with this code, which chooses from them. */
async function listsFingerprint(): Promise<string> {
  const hash = createHash('sha256').update(await readFile(import.meta.filename));
  for (const name of (await readdir(listsDirectory)).sort()) {
    const entry = await stat(join(listsDirectory, name));
    if (entry.isFile() && name !== 'lock') hash.update(`${name} ${entry.size} ${entry.mtimeMs}\n`);
  }
  return hash.digest('hex');
}

async function readResolution(file: string): Promise<{ fingerprint: string; packages: DebianPackage[] } | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    // Absent at first, or cut off by an interrupted run: both mean "resolve again".
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The wanted packages, the concrete kernel behind its meta package, and the libraries they depend on. */
async function resolvePackages({ kernel, standalone, linked }: PackageSelection): Promise<DebianPackage[]> {
  const kernels = kernel ? await currentKernel() : [];
  const libraries = (await dependencies(linked, ['--recurse'])).filter(isWantedLibrary);
  const selection = [...new Set([...kernels, ...standalone, ...linked, ...libraries])].sort();
  const records = (await run('apt-cache', ['show', '--no-all-versions', ...selection])).toString('utf8');
  return records
    .split(/\n\n+/)
    .filter((record) => record.trim() !== '')
    .map(parseRecord)
    .sort((left, right) => (left.name < right.name ? -1 : 1));
}

async function currentKernel(): Promise<string[]> {
  const kernels = (await dependencies([kernelPackage], [])).filter((name) =>
    /^linux-image-\d.*-cloud-amd64$/.test(name),
  );
  if (kernels.length !== 1) {
    throw new SealpodError('PREREQUISITE', 'the package lists name no single cloud kernel', {
      expected: 'one package linux-image-<version>-cloud-amd64',
      actual: kernels.join(' ') || 'none',
      fix: 'run `apt-get update` as root',
    });
  }
  return kernels;
}

/** libelogind0 replaces a file of libsystemd0 on machines without systemd; the image takes the original. */
function isWantedLibrary(name: string): boolean {
  return /^z?lib/.test(name) && name !== 'libelogind0';
}

/** Names of real packages that `names` depend on. Names of another architecture ("libc6:i386") are left out. */
async function dependencies(names: readonly string[], options: readonly string[]): Promise<string[]> {
  const noise = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'].map((kind) => `--no-${kind}`);
  const tree = (await run('apt-cache', ['depends', ...options, ...noise, ...names])).toString('utf8');
  const found = [...tree.matchAll(/^(?: *\|?(?:Pre)?Depends: )?([a-z0-9][a-z0-9+.-]*)(?: |$)/gm)].map(
    (match) => match[1] ?? '',
  );
  return [...new Set(found)];
}

/** Reads one stanza of a Packages file (Debian policy, chapter 5). */
export function parseRecord(record: string): DebianPackage {
  const field = (name: string): string => {
    const value = new RegExp(`^${name}: (.+)$`, 'm').exec(record)?.[1];
    if (value === undefined) {
      throw new SealpodError('PREREQUISITE', `a record of the package lists lacks ${name}`, {
        actual: record.slice(0, 200),
        fix: 'run `apt-get update` as root',
      });
    }
    return value.trim();
  };
  const architecture = field('Architecture');
  return {
    name: field('Package'),
    version: field('Version'),
    architecture,
    size: Number(field('Size')),
    sha256: field('SHA256'),
  };
}

async function isPresent(file: string, item: DebianPackage): Promise<boolean> {
  try {
    return (await stat(file)).size === item.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** apt verifies what it downloads against its signed lists; the digest is checked again before a file enters the cache. */
async function download(cacheDirectory: string, items: readonly DebianPackage[]): Promise<void> {
  const directory = await makeWorkDirectory(join(cacheDirectory, 'packages'), 'download');
  try {
    const names = items.map((item) => `${item.name}=${item.version}`);
    // apt's own sandbox user could not write here; it runs as the caller instead.
    await run('apt-get', ['download', '-q', '-o', 'APT::Sandbox::User=', ...names], { cwd: directory });
    for (const file of await readdir(directory)) {
      const content = await readFile(join(directory, file));
      const sha256 = createHash('sha256').update(content).digest('hex');
      const item = items.find((candidate) => candidate.sha256 === sha256);
      if (item === undefined) {
        throw new SealpodError('PREREQUISITE', `${basename(file)} is not the package the lists name`, {
          actual: sha256,
        });
      }
      await rename(join(directory, file), packageFile(cacheDirectory, item));
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  for (const item of items) {
    if (!(await isPresent(packageFile(cacheDirectory, item), item))) {
      throw new SealpodError('PREREQUISITE', `package ${item.name} ${item.version} could not be downloaded`, {
        fix: 'run `apt-get update` as root, check the network',
      });
    }
  }
}
