import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { invalidArgument } from '../failures.ts';

/** Where a disk is, in the words of the agent protocol: `scsi` and `<id>:<lun>`, or `blk` and the slots of a PCI path. */
export interface DiskAddress {
  readonly driver: string;
  readonly source: string;
  /** Serial number that the disk must have; undefined: any. */
  readonly serial: string | undefined;
}

/** Where the kernel shows disks; tests have their own. */
export interface DiskPaths {
  /** Default `/sys`. */
  readonly sysfs: string;
  /** Default `/dev`. */
  readonly devices: string;
}

const waitMs = 15_000;
const pollMs = 50;
const serialPattern = /^[A-Za-z0-9._-]{1,64}$/;

/**
 * The device node of a disk that was plugged in a moment ago; waits until the kernel has found it. Where it is says nothing
 * about whose it is: the host decides what is plugged in where.
 *
 * @throws TtrpcError INVALID_ARGUMENT; SealpodError NOT_FOUND where there is no such disk after a while
 */
export async function findDisk(address: DiskAddress, paths: DiskPaths, timeoutMs = waitMs): Promise<string> {
  const { serial } = address;
  if (serial !== undefined && !serialPattern.test(serial)) throw invalidArgument('not the serial number of a disk');
  const find = finder(address, paths.sysfs);
  const deadline = Date.now() + timeoutMs;
  let seen = 'no disk there';
  while (true) {
    const name = await find();
    if (name !== undefined) {
      const node = join(paths.devices, name);
      const actual = serial === undefined ? undefined : await serialOf(paths.sysfs, name);
      const isThere = (await stat(node).catch(() => undefined)) !== undefined;
      if (isThere && actual === serial) return node;
      seen = `disk ${name}${isThere ? ` with serial number ${actual ?? 'unknown'}` : ' without a device node'}`;
    }
    if (Date.now() > deadline) break;
    await sleep(pollMs);
  }
  throw new SealpodError('NOT_FOUND', `the volume at ${address.driver} ${address.source} did not appear`, {
    expected: serial === undefined ? 'a disk' : `a disk with serial number ${serial}`,
    actual: seen,
    fix: 'see the adaptor log',
  });
}

/** Finds the kernel's name of the disk. Throws INVALID_ARGUMENT for an address that is none. */
function finder({ driver, source }: DiskAddress, sysfs: string): () => Promise<string | undefined> {
  if (driver === 'scsi') {
    const [, id = '', lun = ''] = /^([0-9]{1,3}):([0-9]{1,5})$/.exec(source) ?? [];
    if (id === '') throw invalidArgument(`${JSON.stringify(source)} is not the address of a SCSI disk`);
    return async () => {
      const folder = join(sysfs, 'bus/scsi/devices');
      const unit = (await names(folder)).find((name) => /^\d+:0:\d+:\d+$/.test(name) && name.endsWith(`:${id}:${lun}`));
      return unit === undefined ? undefined : (await names(join(folder, unit, 'block')))[0];
    };
  }
  if (!/^[0-9a-f]{2}(\/[0-9a-f]{2}){0,3}$/.test(source))
    throw invalidArgument(`${JSON.stringify(source)} is not a PCI path`);
  return async () => {
    let folder = join(sysfs, 'devices/pci0000:00');
    for (const slot of source.split('/')) {
      const device = (await names(folder)).find((name) =>
        new RegExp(`^[0-9a-f]{4}:[0-9a-f]{2}:${slot}\\.0$`).test(name),
      );
      if (device === undefined) return undefined;
      folder = join(folder, device);
    }
    const virtio = (await names(folder)).find((name) => /^virtio\d+$/.test(name));
    return virtio === undefined ? undefined : (await names(join(folder, virtio, 'block')))[0];
  };
}

/** A virtio disk tells its serial number itself, a SCSI disk on a page of its product data (SPC-4, 7.8.15). */
async function serialOf(sysfs: string, name: string): Promise<string | undefined> {
  const own = await readFile(join(sysfs, 'class/block', name, 'serial'), 'latin1').catch(ignoreAbsence);
  if (own !== undefined) return own.trim();
  const page = await readFile(join(sysfs, 'class/block', name, 'device/vpd_pg80')).catch(ignoreAbsence);
  return page?.subarray(4).toString('latin1').replaceAll('\0', '').trim();
}

async function names(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(ignoreAbsence)) ?? [];
}

/** Parts of a disk come and go while it is plugged in. */
function ignoreAbsence(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'ENODEV' && error.code !== 'ENOTDIR' && error.code !== 'EINVAL')
    throw error;
}
