import { type FileHandle, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { decodeInitdataDisk, initdataDiskHeaderBytes, initdataDiskLength } from '@sealpod/protocol/initdata';

/** Whole disks of virtio-blk and SCSI; partitions are not looked at. */
const diskName = /^(?:vd|sd)[a-z]+$/;

/**
 * Finds the initdata disk among the machine's block devices by its magic, and gives the raw document bytes. Nothing of them
 * is parsed: they must be measured first.
 *
 * @returns undefined where no disk carries the magic
 * @throws SealpodError INITDATA_SCHEMA where a disk carries it and is damaged, or more than one carries it
 */
export async function readInitdataDisk(devices = '/dev'): Promise<Buffer | undefined> {
  const names = (await readdir(devices)).filter((name) => diskName.test(name)).sort();
  const found: Buffer[] = [];
  for (const name of names) {
    const document = await readDisk(join(devices, name));
    if (document !== undefined) found.push(document);
  }
  if (found.length > 1)
    throw new SealpodError('INITDATA_SCHEMA', `${found.length} disks carry initdata, expected at most one`);
  return found[0];
}

async function readDisk(path: string): Promise<Buffer | undefined> {
  const disk = await open(path, 'r');
  try {
    const header = await readExactly(disk, initdataDiskHeaderBytes);
    const length = initdataDiskLength(header);
    return length === undefined
      ? undefined
      : decodeInitdataDisk(await readExactly(disk, initdataDiskHeaderBytes + length));
  } finally {
    await disk.close();
  }
}

/** The first `length` bytes, or fewer where the device ends. */
async function readExactly(disk: FileHandle, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await disk.read(bytes, filled, length - filled, filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}
