import { chmod, lchown, mkdir, stat } from 'node:fs/promises';
import type { Storage } from '@sealpod/protocol/gen/kata/agent_pb';
import type { RunCommand } from './command.ts';
import { refuseLinkedFolders, segmentsOfVolume } from './confinement.ts';
import { invalidArgument } from './failures.ts';
import { type PersistentVolumes, volumeDrivers } from './volumes/persistent-volumes.ts';

/** Storage drivers of this agent, as GuestDetails names them. */
export const storageDrivers = ['ephemeral', 'image_guest_pull', 'local', ...volumeDrivers] as const;

const defaultDirectoryMode = 0o755;
const groupModeBits = 0o2770;
const groupOption = 'fsgid=';
const permissionMask = 0o7777;
const setGroupIdBit = 0o2000;
const largestGroupId = 0xffff_fffe;
/** What mount(8) may be told of a tmpfs: no `remount`, `bind` or `X-mount` of the host's choice. */
const temporaryFileSystemOption =
  /^(?:ro|rw|(?:no)?(?:exec|suid|dev|atime|diratime)|relatime|strictatime|(?:size|nr_blocks|nr_inodes)=[0-9]{1,18}[kmg%]?|mode=[0-7]{1,5}|[ug]id=[0-9]{1,10}|huge=[a-z_]{1,16})$/i;

interface Mounted {
  /** What the storage was asked for as: a second user must ask for the same. */
  readonly wish: string;
  users: number;
  readonly mounted: boolean;
}

/**
 * What the storages of the pod occupy, but for its images. A mount point that several containers name (an emptyDir) is made
 * once and taken away with the pod. Everything is in the folders of volumes below `root`.
 */
export class StorageTable {
  readonly #root: string;
  readonly #run: RunCommand;
  readonly #volumes: PersistentVolumes;
  readonly #points = new Map<string, Mounted>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(root: string, run: RunCommand, volumes: PersistentVolumes) {
    this.#root = root;
    this.#run = run;
    this.#volumes = volumes;
  }

  /** Makes a storage, or counts another user of it. Returns its mount point. Throws INVALID_ARGUMENT. */
  attach(storage: Storage): Promise<string> {
    return this.#inTurn(async () => {
      const wish = wishOf(storage);
      const known = this.#points.get(storage.mountPoint);
      if (known !== undefined && known.wish !== wish)
        throw invalidArgument(`the storage at ${storage.mountPoint} exists already and is another one`);
      if (known !== undefined) known.users++;
      // The pod itself is a user: what an init container left is there for those that come after it.
      else this.#points.set(storage.mountPoint, { wish, users: 2, mounted: await this.#make(storage) });
      return storage.mountPoint;
    });
  }

  /** Takes one user off. */
  detach(mountPoint: string): Promise<void> {
    return this.#inTurn(async () => {
      const known = this.#points.get(mountPoint);
      if (known === undefined || --known.users > 0) return;
      this.#points.delete(mountPoint);
      if (known.mounted) await this.#run('umount', [mountPoint]);
    });
  }

  /** Unmounts all. */
  async close(): Promise<void> {
    for (const [mountPoint, { mounted }] of this.#points) {
      this.#points.delete(mountPoint);
      if (mounted) await this.#run('umount', [mountPoint]);
    }
    await this.#volumes.close();
  }

  async #make(storage: Storage): Promise<boolean> {
    const segments = segmentsOfVolume(this.#root, storage.mountPoint);
    await refuseLinkedFolders(this.#root, segments);
    switch (storage.driver) {
      case 'ephemeral':
        await this.#mountTmpfs(storage);
        return true;
      case 'local':
        await makeLocal(storage);
        return false;
      case 'blk':
      case 'scsi':
        await this.#volumes.mount(storage);
        // A volume that cannot be written keeps the group it has.
        if (!storage.options.includes('ro')) await applyGroup(storage, groupOf(storage.options));
        return true;
      default:
        throw invalidArgument(`storage driver ${JSON.stringify(storage.driver)} is not supported`);
    }
  }

  async #mountTmpfs(storage: Storage): Promise<void> {
    const group = groupOf(storage.options);
    const options = storage.options.filter((option) => option !== '' && !option.startsWith(groupOption));
    const unknown = options.find((option) => !temporaryFileSystemOption.test(option));
    if (unknown !== undefined) throw invalidArgument(`storage option ${JSON.stringify(unknown)} is not supported`);
    await mkdir(storage.mountPoint, { recursive: true, mode: defaultDirectoryMode });
    const arguments_ = options.length === 0 ? [] : ['-o', options.join(',')];
    await this.#run('mount', ['-t', 'tmpfs', ...arguments_, 'tmpfs', storage.mountPoint]);
    await applyGroup(storage, group);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

function wishOf({ driver, driverOptions, source, fstype, options }: Storage): string {
  return JSON.stringify([driver, driverOptions, source, fstype, options]);
}

async function makeLocal(storage: Storage): Promise<void> {
  const group = groupOf(storage.options);
  const option = storage.options.find((item) => item.startsWith('mode='));
  const mode = option === undefined ? defaultDirectoryMode : Number.parseInt(option.slice('mode='.length), 8);
  if (!(mode >= 0 && mode <= 0o7777)) throw invalidArgument(`storage option ${option} is not a mode`);
  await mkdir(storage.mountPoint, { recursive: true });
  // mkdir's mode is cut by the umask.
  await chmod(storage.mountPoint, mode);
  await applyGroup(storage, group);
}

/**
 * Gives a volume to the group of the pod: by the member of the message, or by the option that Kata's shims send
 * (`fsGroup` of a pod). What is made in the folder is then the group's too.
 */
async function applyGroup({ fsGroup, mountPoint }: Storage, group: number | undefined): Promise<void> {
  if (group !== undefined) {
    await lchown(mountPoint, -1, group);
    // After the change of owner, which clears the bit.
    const { mode } = await stat(mountPoint);
    await chmod(mountPoint, (mode & permissionMask) | setGroupIdBit);
  }
  if (fsGroup === undefined) return;
  await lchown(mountPoint, 0, fsGroup.groupId);
  await chmod(mountPoint, groupModeBits);
}

/** The group that the options name. Throws INVALID_ARGUMENT for what is no group. */
function groupOf(options: readonly string[]): number | undefined {
  const option = options.find((item) => item.startsWith(groupOption));
  if (option === undefined) return undefined;
  const digits = option.slice(groupOption.length);
  const group = /^[0-9]{1,10}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!(group <= largestGroupId)) throw invalidArgument(`storage option ${JSON.stringify(option)} is not a group`);
  return group;
}
