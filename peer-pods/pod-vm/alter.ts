import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { calibrationName } from './build.ts';
import { efiPartitionName, fileSha256, type PartitionFiles, sha256, writeDisk } from './disk.ts';
import { copyDisk, makeEfiFileSystem, makeVerityTree, readUki } from './file-systems.ts';
import { rootPartitionName, verityPartitionName } from './initrd.ts';
import { diskName, type Manifest, manifestName, readManifest } from './manifest.ts';
import { readSections } from './portable-executable.ts';
import { alteredReleaseText, releaseText } from './root-tree.ts';
import { templateSwitch } from './template-words.ts';
import { commandLine, joinUnifiedKernelImage, splitUnifiedKernelImage, stubOf } from './unified-kernel-image.ts';
import { makeWorkDirectory } from './work-directory.ts';

/**
 * A copy whose machines start from a template: `template` (see `templateSwitch`). And what a hostile host might do to an
 * image:
 *
 * - `command-line`: one word more on the kernel command line. Boots; loader and command line measure differently.
 * - `root-file-system`: another byte in a file, with hashes and command line made to fit. Boots; the root hash differs.
 * - `root-byte`: another byte, hashes untouched. dm-verity refuses it: the agent never starts.
 */
export type Alteration = 'template' | 'command-line' | 'root-file-system' | 'root-byte';

export interface AlterOptions {
  readonly imageDirectory: string;
  readonly outputDirectory: string;
  readonly change: Alteration;
}

/**
 * Makes an altered copy of an image, for templates, demonstrations and tests of refusal. Does nothing where the copy is there.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where the image is missing or damaged.
 */
export async function alterPodVmImage(options: AlterOptions): Promise<Manifest> {
  const original = await readManifest(options.imageDirectory);
  const present = await readManifest(options.outputDirectory).catch((error: unknown) => {
    if (error instanceof SealpodError && error.code === 'PROVIDER_IMAGE') return undefined;
    throw error;
  });
  if (present?.inputs === original.inputs && present.altered === options.change) return present;
  await mkdir(options.outputDirectory, { recursive: true });
  const work = await makeWorkDirectory(options.outputDirectory, 'alter');
  try {
    const files = await takeApart(join(options.imageDirectory, original.disk), original, work);
    const changed = await alter(options.change, original, files, work);
    const parts = await writeDisk(join(work, diskName), files);
    const kept = original.parts.filter((part) => part.offset === undefined && part.name !== 'unified kernel image');
    const manifest: Manifest = {
      ...original,
      ...changed.manifest,
      image: `sha256:${await fileSha256(join(work, diskName))}`,
      diskSize: (await stat(join(work, diskName))).size,
      parts: [
        ...parts,
        { name: 'unified kernel image', size: changed.uki.length, sha256: sha256(changed.uki) },
        ...kept,
      ],
      altered: options.change,
    };
    await copyDisk(join(options.imageDirectory, calibrationName), join(work, calibrationName));
    await writeFile(join(work, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
    await rm(join(options.outputDirectory, manifestName), { force: true });
    for (const name of [diskName, calibrationName, manifestName]) {
      await rename(join(work, name), join(options.outputDirectory, name));
    }
    return manifest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

interface Altered {
  readonly uki: Buffer;
  readonly manifest: Partial<Manifest>;
}

async function alter(change: Alteration, original: Manifest, files: PartitionFiles, work: string): Promise<Altered> {
  const uki = await readUki(files.efi, 0, work);
  switch (change) {
    case 'template':
      return rewriteUki(uki, `${original.commandLine} ${templateSwitch}`, files);
    case 'command-line':
      return rewriteUki(uki, `${original.commandLine} sealpod.altered=1`, files);
    case 'root-byte': {
      // The first block, which holds the superblock: it is read before anything else.
      await overwrite(files.root, 0, Buffer.from([0xff]));
      return { uki, manifest: {} };
    }
    case 'root-file-system': {
      const at = (await readFile(files.root)).indexOf(releaseText);
      if (at < 0) throw new SealpodError('PROVIDER_IMAGE', 'the root file system holds no plain /etc/os-release');
      await overwrite(files.root, at, Buffer.from(alteredReleaseText));
      await dropSuperblockChecksum(files.root);
      const { rootHash, dataBlocks } = await makeVerityTree(files.root, files.verity);
      const altered = await rewriteUki(uki, commandLine(rootHash, dataBlocks), files);
      return { ...altered, manifest: { ...altered.manifest, rootHash } };
    }
  }
}

async function rewriteUki(uki: Buffer, line: string, files: PartitionFiles): Promise<Altered> {
  const rewritten = joinUnifiedKernelImage(stubOf(uki), { ...splitUnifiedKernelImage(uki), commandLine: line });
  if (readSections(rewritten).length !== readSections(uki).length) {
    throw new SealpodError('PROVIDER_IMAGE', 'the kernel image could not be taken apart');
  }
  await makeEfiFileSystem(files.efi, rewritten);
  return { uki: rewritten, manifest: { commandLine: line } };
}

/** Copies each partition of the disk to a file of its own. */
async function takeApart(disk: string, manifest: Manifest, work: string): Promise<PartitionFiles> {
  const names = { efi: efiPartitionName, root: rootPartitionName, verity: verityPartitionName };
  const handle = await open(disk, 'r').catch((error: unknown) => {
    throw new SealpodError('PROVIDER_IMAGE', `the disk ${disk} cannot be opened`, { cause: error });
  });
  try {
    for (const [file, name] of Object.entries(names)) {
      const part = manifest.parts.find((candidate) => candidate.name === name);
      if (part?.offset === undefined) throw new SealpodError('PROVIDER_IMAGE', `the manifest names no part ${name}`);
      const content = Buffer.alloc(part.size);
      await handle.read(content, 0, content.length, part.offset);
      if (sha256(content) !== part.sha256) {
        throw new SealpodError('PROVIDER_IMAGE', `partition ${name} is not the one of the manifest`, {
          expected: part.sha256,
          actual: sha256(content),
        });
      }
      await writeFile(join(work, file), content);
    }
  } finally {
    await handle.close();
  }
  return { efi: join(work, 'efi'), root: join(work, 'root'), verity: join(work, 'verity') };
}

/**
 * Makes the file system say that its superblock has no checksum (bit 0 of `feature_compat`, 8 bytes into the superblock
 * at 1024: Linux fs/erofs/erofs_fs.h): the checksum covers the whole first block, where small files may lie too.
 */
async function dropSuperblockChecksum(file: string): Promise<void> {
  const at = 1024 + 8;
  const features = (await readFile(file)).readUInt8(at);
  await overwrite(file, at, Buffer.from([features & ~1]));
}

async function overwrite(file: string, at: number, bytes: Buffer): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    await handle.write(bytes, 0, bytes.length, at);
  } finally {
    await handle.close();
  }
}
