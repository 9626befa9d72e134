import { copyFile, open, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { veritySalt } from './initrd.ts';
import { run } from './run.ts';

const rootFileSystemId = '5ea19d00-0000-4000-8000-000000000001';
const verityId = '5ea19d00-0000-4000-8000-000000000002';
const blockSize = 4096;

/** Makes a read-only EROFS image of a directory: all files owned by root, all times 0. Needs no root. */
export async function makeRootFileSystem(image: string, tree: string): Promise<void> {
  // lz4: a cold start reads (and verifies) half as many blocks as of an uncompressed image. Higher levels of lz4hc take
  // five times as long for a size smaller by three percent.
  const options = ['--quiet', '-T0', '-x-1', '--all-root', `-U${rootFileSystemId}`, '-zlz4hc,3', '-C65536'];
  await run('mkfs.erofs', [...options, image, tree]);
  const { size } = await stat(image);
  if (size % blockSize !== 0) await truncate(image, Math.ceil(size / blockSize) * blockSize);
}

export interface VerityTree {
  /** dm-verity root hash, hex. */
  readonly rootHash: string;
  /** Number of 4096-byte blocks it covers. */
  readonly dataBlocks: number;
}

/** Writes the dm-verity hash tree of `image` to `hashes` (format 1, SHA-256, 4096-byte blocks). Needs no root. */
export async function makeVerityTree(image: string, hashes: string): Promise<VerityTree> {
  await rm(hashes, { force: true });
  const options = [`--salt=${veritySalt}`, `--uuid=${verityId}`, '--hash=sha256', '--data-block-size=4096'];
  const output = (await run('veritysetup', ['format', ...options, image, hashes])).toString('utf8');
  const rootHash = /^Root hash:\s+([0-9a-f]{64})$/m.exec(output)?.[1];
  if (rootHash === undefined) {
    throw new SealpodError('PROVIDER_IMAGE', 'veritysetup printed no root hash', { actual: output });
  }
  return { rootHash, dataBlocks: (await stat(image)).size / blockSize };
}

/** mtools and mkfs.fat write the current time unless told another (1980-01-01 is the first that FAT can hold). */
const reproducible = { SOURCE_DATE_EPOCH: '315532800', MTOOLS_SKIP_CHECK: '1' };

/** FAT16 begins at 4085 clusters, here of 4096 bytes; in MiB. */
const smallestFat16 = 17;

/** Makes the FAT file system of the EFI partition, just large enough for one UKI at the removable-media path. */
export async function makeEfiFileSystem(image: string, uki: Uint8Array): Promise<void> {
  const program = `${image}.program`;
  const mebibytes = Math.max(smallestFat16, Math.ceil(uki.length / (1 << 20)) + 1);
  await rm(image, { force: true });
  await writeFile(image, '');
  await truncate(image, mebibytes << 20);
  // Large clusters: the firmware reads the program in fewer, longer pieces.
  const options = ['--invariant', '-F', '16', '-s', '8', '-S', '512', '-f', '1', '-n', 'SEALPOD', '-i', '5ea19d01'];
  await run('mkfs.vfat', [...options, image], { env: reproducible });
  await writeFile(program, uki);
  try {
    await run('mmd', ['-i', image, '::/EFI', '::/EFI/BOOT'], { env: reproducible });
    await run('mcopy', ['-i', image, program, '::/EFI/BOOT/BOOTX64.EFI'], { env: reproducible });
  } finally {
    await rm(program, { force: true });
  }
}

/** Reads the UKI out of the EFI partition that starts at byte `offset` of a disk. */
export async function readUki(disk: string, offset: number, temporaryDirectory: string): Promise<Buffer> {
  const file = join(temporaryDirectory, 'BOOTX64.EFI');
  await run('mcopy', ['-n', '-i', `${disk}@@${offset}`, '::/EFI/BOOT/BOOTX64.EFI', file], { env: reproducible });
  const handle = await open(file, 'r');
  try {
    return await handle.readFile();
  } finally {
    await handle.close();
    await rm(file, { force: true });
  }
}

/** Copies a disk, sharing blocks where the file system can. */
export async function copyDisk(from: string, to: string): Promise<void> {
  await rm(to, { force: true });
  await copyFile(from, to);
}
