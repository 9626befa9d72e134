import { createHash } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { fileSha256, sha256, writeDisk } from './disk.ts';
import { makeEfiFileSystem, makeRootFileSystem, makeVerityTree } from './file-systems.ts';
import { writeCalibrationInitrd, writeInitrd } from './initrd.ts';
import { readKernel } from './kernel.ts';
import { diskName, type Manifest, type ManifestPart, manifestName, readManifest } from './manifest.ts';
import { type DebianPackage, extractPackages, fetchPackages } from './packages.ts';
import { writeRootTree } from './root-tree.ts';
import { commandLine, joinUnifiedKernelImage } from './unified-kernel-image.ts';
import { makeWorkDirectory } from './work-directory.ts';

export interface BuildOptions {
  /** Receives `disk.raw`, `calibration.efi` and `manifest.json`. */
  readonly outputDirectory: string;
  /** Keeps downloaded packages between builds. */
  readonly cacheDirectory: string;
  /** The guest agent's bundle: everything in it goes to /sealpod; must hold `guest-agent.mjs`. */
  readonly guestAgentDirectory: string;
  /** The Node binary of the guest; default: that of the npm package `node`. */
  readonly nodeBinary?: string;
  /** Told what is being done, a few words a step. */
  readonly progress?: (step: string) => void;
}

const stubPath = 'usr/lib/systemd/boot/efi/linuxx64.efi.stub';

/** The EFI program that calibration boots; see `calibrate.ts`. */
export const calibrationName = 'calibration.efi';

/**
 * Builds the pod VM image: a raw disk with an EFI partition (one UKI), an EROFS root and its dm-verity hashes. Needs no
 * root. Equal inputs give equal bytes, and where the image in `outputDirectory` was made of equal inputs and is
 * unchanged in size, nothing is done.
 *
 * @throws SealpodError `PREREQUISITE` where a tool or package is missing, `PROVIDER_IMAGE` where the build fails.
 */
export async function buildPodVmImage(options: BuildOptions): Promise<Manifest> {
  const progress = options.progress ?? (() => undefined);
  const nodeBinary = options.nodeBinary ?? packagedNode();
  await mkdir(options.outputDirectory, { recursive: true });
  progress('resolving packages');
  const packages = await fetchPackages(options.cacheDirectory);
  const inputs = await digestInputs(options.guestAgentDirectory, nodeBinary, packages);
  const present = await presentImage(options.outputDirectory, inputs);
  if (present !== undefined) return present;

  const work = await makeWorkDirectory(options.outputDirectory, 'build');
  try {
    const manifest = await build({ ...options, nodeBinary }, packages, inputs, work, progress);
    // The manifest goes last: an interrupted build leaves none that names what is not there.
    await rm(join(options.outputDirectory, manifestName), { force: true });
    for (const name of [diskName, calibrationName]) await rename(join(work, name), join(options.outputDirectory, name));
    const text = `${JSON.stringify(manifest, null, 2)}\n`;
    await writeFile(join(work, manifestName), text, { mode: 0o644 });
    await rename(join(work, manifestName), join(options.outputDirectory, manifestName));
    return manifest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function build(
  options: BuildOptions & { readonly nodeBinary: string },
  packages: readonly DebianPackage[],
  inputs: string,
  work: string,
  progress: (step: string) => void,
): Promise<Manifest> {
  // Other users (the unprivileged one that runs QEMU) read the result, not the work folder.
  await chmod(work, 0o700);
  const packagesRoot = join(work, 'packages');
  progress('unpacking packages');
  const origins = await extractPackages(options.cacheDirectory, packages, packagesRoot);
  const kernel = await readKernel(packagesRoot);
  progress('writing root file system');
  const tree = join(work, 'root');
  const taken = await writeRootTree(tree, { ...options, packagesRoot });
  const files = { efi: join(work, 'efi'), root: join(work, 'root.erofs'), verity: join(work, 'root.verity') };
  await makeRootFileSystem(files.root, tree);
  const { rootHash, dataBlocks } = await makeVerityTree(files.root, files.verity);
  progress('writing kernel image');
  const stub = await readFile(join(packagesRoot, stubPath));
  const initrd = await writeInitrd(packagesRoot, kernel);
  const line = commandLine(rootHash, dataBlocks);
  const uki = joinUnifiedKernelImage(stub, { linux: kernel.image, initrd: initrd.archive, commandLine: line });
  await makeEfiFileSystem(files.efi, uki);
  progress('writing disk');
  const disk = join(work, diskName);
  const partitions = await writeDisk(disk, files);
  const calibration = joinUnifiedKernelImage(stub, {
    linux: kernel.image,
    initrd: await writeCalibrationInitrd(packagesRoot),
    commandLine: 'console=ttyS0 quiet panic=-1 cryptomgr.notests',
  });
  await writeFile(join(work, calibrationName), calibration);
  const parts: ManifestPart[] = [
    ...partitions,
    ...Object.entries({
      'unified kernel image': uki,
      kernel: kernel.image,
      initrd: initrd.archive,
      'boot stub': stub,
    }).map(([name, content]) => ({ name, size: content.length, sha256: sha256(content) })),
    { name: 'node', size: (await stat(options.nodeBinary)).size, sha256: await fileSha256(options.nodeBinary) },
  ];
  return {
    version: 1,
    image: `sha256:${await fileSha256(disk)}`,
    disk: diskName,
    diskSize: (await stat(disk)).size,
    rootHash,
    commandLine: line,
    kernelRelease: kernel.release,
    parts,
    packages: usedPackages(packages, origins, [stubPath, kernel.path, ...initrd.taken, ...taken]),
    tools: await toolDigests(),
    inputs,
  };
}

/** The npm package `node` carries the guest's Node as well as the host's, pinned by the lock file. */
export function packagedNode(): string {
  try {
    return createRequire(import.meta.url).resolve('node/bin/node');
  } catch (error) {
    throw new SealpodError('PREREQUISITE', 'the npm package `node` is not installed', {
      cause: error,
      fix: 'run `npm ci`',
    });
  }
}

const tools = ['mkfs.erofs', 'veritysetup', 'mkfs.vfat', 'mcopy', 'mmd', 'dpkg-deb'] as const;

/** The programs that write the image, by content: another version may write other bytes. */
async function toolDigests(): Promise<Record<string, string>> {
  const path = ['/usr/bin', '/usr/sbin', '/bin', '/sbin'];
  const digests: Record<string, string> = {};
  for (const tool of tools) {
    for (const directory of path) {
      const file = join(directory, tool);
      if ((await stat(file).catch(() => undefined)) === undefined) continue;
      digests[tool] = await fileSha256(file);
      break;
    }
    if (digests[tool] === undefined) throw new SealpodError('PREREQUISITE', `${tool} is not installed`);
  }
  return digests;
}

/** One digest over everything the image is made of, and over this code. */
async function digestInputs(agent: string, nodeBinary: string, packages: readonly DebianPackage[]): Promise<string> {
  const hash = createHash('sha256');
  hash.update(JSON.stringify([packages, await toolDigests(), process.versions['zstd'] ?? '']));
  hash.update(await fileSha256(nodeBinary));
  await digestDirectory(agent, hash, () => true);
  await digestDirectory(import.meta.dirname, hash, (name) => /\.(ts|m?js)$/.test(name) && !name.includes('.test.'));
  return hash.digest('hex');
}

async function digestDirectory(
  directory: string,
  hash: ReturnType<typeof createHash>,
  select: (name: string) => boolean,
): Promise<void> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch((error: unknown) => {
    throw new SealpodError('PROVIDER_IMAGE', `the folder ${directory} cannot be read`, { cause: error });
  });
  const files = entries
    .filter((entry) => entry.isFile() && select(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
  for (const file of files.sort()) hash.update(`${file.slice(directory.length)}\0${await fileSha256(file)}\n`);
}

async function presentImage(directory: string, inputs: string): Promise<Manifest | undefined> {
  const manifest = await readManifest(directory).catch((error: unknown) => {
    if (error instanceof SealpodError && error.code === 'PROVIDER_IMAGE') return undefined;
    throw error;
  });
  if (manifest?.inputs !== inputs || manifest.altered !== undefined) return undefined;
  const size = await stat(join(directory, manifest.disk)).then(
    (entry) => entry.size,
    () => -1,
  );
  return size === manifest.diskSize ? manifest : undefined;
}

/** The packages that brought at least one of the files taken. */
function usedPackages(
  packages: readonly DebianPackage[],
  origins: ReadonlyMap<string, DebianPackage>,
  taken: readonly string[],
): Manifest['packages'] {
  const used = new Set(taken.map((path) => origins.get(path)?.name));
  return packages.filter(({ name }) => used.has(name)).map(({ name, version, sha256 }) => ({ name, version, sha256 }));
}
