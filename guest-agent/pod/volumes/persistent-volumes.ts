import { createHash } from 'node:crypto';
import { mkdir, stat } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Device, Storage } from '@sealpod/protocol/gen/kata/agent_pb';
import type { RunCommand } from '../command.ts';
import { invalidArgument } from '../failures.ts';
import { type DiskAddress, type DiskPaths, findDisk } from './disk.ts';
import { closeEncryptedVolume, openEncryptedVolume, readStart, volumeCommandMs } from './encryption.ts';
import { isEmpty } from './header.ts';

/** Drivers of the agent protocol by which a disk is named. */
export const volumeDrivers = ['blk', 'scsi'] as const;

const fileSystemType = 'ext4';
const serialOption = 'serial=';
/** Kata's own option of that name knows one value, `ephemeral`; here it names a resource of the key broker. */
const keyOption = 'encryption_key=';
const mountOption = /^(?:ro|rw|(?:no)?(?:exec|atime|diratime)|nosuid|nodev|relatime|strictatime|discard)$/;
/** What a volume may not bring along, whoever wrote it. */
const fixedMountOptions = ['nosuid', 'nodev'];
const startBytes = 1 << 20;
const blockSizeBits = 8;

export interface VolumeDependencies {
  readonly run: RunCommand;
  /** A resource of the key broker; undefined: there is no data hub, and no encrypted volume is opened. */
  readonly resource: ((uri: string) => Promise<Uint8Array>) | undefined;
  /** Default: the kernel's own. */
  readonly disks?: DiskPaths;
  /** Folder in the guest's memory for headers of encrypted volumes; default `/run/sealpod/volumes`. */
  readonly work?: string;
}

/** A block device of the guest, for a container. */
export interface VolumeDevice {
  readonly major: number;
  readonly minor: number;
}

interface OpenDisk {
  /** What the disk was asked for with: a second user must ask for the same. */
  readonly wish: string;
  /** Device node with the plaintext. */
  readonly device: string;
  /** Name of the mapping that decrypts it. */
  readonly mapping: string | undefined;
}

/**
 * Disks that the host plugged in. Each is opened once, with or without encryption, and stays until the pod ends. Whether a
 * disk may be used without encryption, or at all, was decided by the agent policy before.
 */
export class PersistentVolumes {
  readonly #with: VolumeDependencies;
  readonly #disks = new Map<string, OpenDisk>();

  constructor(dependencies: VolumeDependencies) {
    this.#with = dependencies;
  }

  /**
   * Mounts a disk's file system (ext4). One that was never written to gets a file system first.
   *
   * @throws TtrpcError INVALID_ARGUMENT; SealpodError NOT_FOUND, VOLUME_KEY, VOLUME_FORMAT, or the key broker's refusal
   */
  async mount(storage: Storage): Promise<void> {
    const { fstype, mountPoint } = storage;
    if (fstype !== fileSystemType)
      throw invalidArgument(
        `file system ${JSON.stringify(fstype)} of a volume is not supported, expected ${fileSystemType}`,
      );
    const options = storage.options.filter((option) => option !== '' && !option.startsWith('fsgid='));
    const unknown = options.find((option) => !mountOption.test(option));
    if (unknown !== undefined) throw invalidArgument(`storage option ${JSON.stringify(unknown)} is not supported`);
    const readOnly = options.includes('ro');
    const { device } = await this.#open(storage.driver, storage.source, storage.driverOptions, {
      readOnly,
      makeFileSystem: true,
    });
    await mkdir(mountPoint, { recursive: true, mode: 0o755 });
    const all = [...new Set([...options, ...fixedMountOptions])].join(',');
    try {
      await this.#with.run('mount', ['-t', fileSystemType, '-o', all, device, mountPoint]);
    } catch (cause) {
      throw new SealpodError('VOLUME_FORMAT', `the volume has no ${fileSystemType} file system that can be mounted`, {
        cause,
      });
    }
  }

  /** The device of a disk for a container, without looking at what is on it. Throws as `mount`. */
  async device(device: Device): Promise<VolumeDevice> {
    const opened = await this.#open(device.type, device.id, device.options, { readOnly: false, makeFileSystem: false });
    const { rdev } = await stat(opened.device);
    return deviceNumbers(rdev);
  }

  /** Forgets all keys. Call it when nothing is mounted any more. */
  async close(): Promise<void> {
    for (const [address, { mapping }] of this.#disks) {
      if (mapping !== undefined) await closeEncryptedVolume(mapping, this.#with.run);
      this.#disks.delete(address);
    }
  }

  async #open(
    driver: string,
    source: string,
    driverOptions: readonly string[],
    use: { readonly readOnly: boolean; readonly makeFileSystem: boolean },
  ): Promise<OpenDisk> {
    const { serial, key } = parseOptions(driverOptions);
    const address = `${driver} ${source}`;
    const wish = JSON.stringify([serial, key, use]);
    const known = this.#disks.get(address);
    if (known?.wish === wish) return known;
    if (known !== undefined) {
      throw new SealpodError('VOLUME_FORMAT', `the volume at ${address} is used already, and differently`, {
        expected: known.wish,
        actual: wish,
      });
    }
    const disk = await findDisk(
      { driver, source, serial } satisfies DiskAddress,
      this.#with.disks ?? { sysfs: '/sys', devices: '/dev' },
    );
    const opened =
      key === undefined
        ? { wish, device: await this.#plain(disk, use), mapping: undefined }
        : { wish, ...(await this.#decrypted(disk, address, key, use)) };
    this.#disks.set(address, opened);
    return opened;
  }

  async #plain(disk: string, use: { readonly readOnly: boolean; readonly makeFileSystem: boolean }): Promise<string> {
    if (use.makeFileSystem && !use.readOnly && isEmpty(await readStart(disk, startBytes))) await this.#format(disk);
    return disk;
  }

  async #decrypted(
    disk: string,
    address: string,
    keyUri: string,
    use: { readonly readOnly: boolean; readonly makeFileSystem: boolean },
  ): Promise<Omit<OpenDisk, 'wish'>> {
    const { resource, run, work = '/run/sealpod/volumes' } = this.#with;
    if (resource === undefined) {
      throw new SealpodError(
        'UNSUPPORTED',
        `the volume is encrypted with ${keyUri}, and there is no data hub to get the key`,
      );
    }
    const key = await resource(keyUri);
    const name = `volume-${createHash('sha256').update(address).digest('hex').slice(0, 16)}`;
    try {
      const { device } = await openEncryptedVolume(
        { name, disk, key, readOnly: use.readOnly, work },
        run,
        async (plaintext) => {
          if (use.makeFileSystem) await this.#format(plaintext);
        },
      );
      return { device, mapping: name };
    } finally {
      key.fill(0);
    }
  }

  async #format(device: string): Promise<void> {
    await this.#with.run('mke2fs', ['-q', '-F', '-t', fileSystemType, '-E', 'nodiscard', device], {
      timeoutMs: volumeCommandMs,
    });
  }
}

/** Options of a disk. Throws INVALID_ARGUMENT for any other, and for one that is there twice. */
function parseOptions(options: readonly string[]): { serial: string | undefined; key: string | undefined } {
  const of = (prefix: string): string | undefined => {
    const [value, second] = options.filter((option) => option.startsWith(prefix));
    if (second !== undefined) throw invalidArgument(`driver option ${prefix} is there twice`);
    return value?.slice(prefix.length);
  };
  const unknown = options.find((option) => !option.startsWith(serialOption) && !option.startsWith(keyOption));
  if (unknown !== undefined)
    throw invalidArgument(`driver option ${JSON.stringify(unknown)} of a volume is not supported`);
  return { serial: of(serialOption), key: of(keyOption) };
}

/** Numbers of a device node (makedev(3)), of the sizes that disks have. */
function deviceNumbers(rdev: number): VolumeDevice {
  const low = rdev & 0xff;
  return { major: (rdev >>> blockSizeBits) & 0xfff, minor: low | ((rdev >>> 12) & 0xfff00) };
}
