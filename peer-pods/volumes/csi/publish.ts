import { mkdir, readFile, rm, rmdir, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { absent, type Backing, type PublishedAs } from './backing.ts';
import { runProgram } from './command.ts';

/** What a pod is to have of a volume. */
export interface Publication {
  readonly volumeId: string;
  /** Where the kubelet expects it. */
  readonly target: string;
  readonly as: PublishedAs;
  readonly readOnly: boolean;
  /** Options of the mount. */
  readonly options: readonly string[];
  /** Resource of the key broker by which the volume is encrypted in the guest; undefined: it is not, or the pod says. */
  readonly key: string | undefined;
}

const fileSystem = 'ext4';

/** Gives volumes to pods of this node, and takes them back. Calls may be repeated. */
export class Publisher {
  readonly #backing: Backing;
  readonly #directVolumes: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(backing: Backing, directVolumes: string) {
    this.#backing = backing;
    this.#directVolumes = directVolumes;
  }

  /**
   * Mounts a volume, puts its device there, or leaves it for a machine: then it is mounted nowhere on this node, and a file
   * says what belongs there (Kata's direct volumes).
   *
   * @throws SealpodError STORAGE_CONFLICT where another pod has it in a way that excludes this one, VOLUME_FORMAT for an
   *   encrypted volume that is to be mounted here
   */
  publish(publication: Publication): Promise<void> {
    return this.#inTurn(async () => {
      const { volumeId, target, as } = publication;
      await this.#refuseConflict(publication);
      const device = await this.#backing.device(volumeId);
      const before = (await this.#backing.published(volumeId))[target];
      await this.#backing.publish(volumeId, target, as);
      try {
        if (as === 'direct') await this.#leave(publication, device);
        else if (as === 'block') await bindDevice(device, target);
        else await this.#mount(publication, device);
      } catch (error) {
        // What is refused is not taken back by the kubelet: it would be in use for ever.
        if (before === undefined) await this.#takeBack(volumeId, target);
        throw error;
      }
    });
  }

  /** Takes back what `publish` gave; the volume's data stay. */
  unpublish(volumeId: string, target: string): Promise<void> {
    return this.#inTurn(() => this.#takeBack(volumeId, target));
  }

  async #takeBack(volumeId: string, target: string): Promise<void> {
    while (await isMounted(target)) await runProgram('umount', target);
    await rm(this.#folderOf(target), { recursive: true, force: true });
    const found = await stat(target).catch(absent);
    // Not recursively: should something be mounted or left there, it is no file of ours.
    if (found?.isDirectory() === true) await rmdir(target);
    else if (found !== undefined) await unlink(target);
    await this.#backing.unpublish(volumeId, target);
  }

  async #refuseConflict({ volumeId, target, as }: Publication): Promise<void> {
    const others = Object.entries(await this.#backing.published(volumeId)).filter(([other]) => other !== target);
    // Two kernels with one file system destroy it.
    const conflict = others.find(([, how]) => how !== 'block' && (as === 'direct' || how === 'direct'));
    if (conflict === undefined) return;
    throw new SealpodError('STORAGE_CONFLICT', `volume ${volumeId} is in use by another pod`, {
      expected: 'one pod in a machine of its own, or pods of this node only',
      actual: `in use at ${conflict[0]}`,
      fix: 'end the other pod; claim it with ReadWriteOncePod',
    });
  }

  async #mount({ volumeId, target, readOnly, options }: Publication, device: string): Promise<void> {
    if (await isMounted(target)) return;
    const start = await this.#backing.start(volumeId);
    if (start.subarray(0, 4).toString('latin1') === 'LUKS') {
      throw new SealpodError('VOLUME_FORMAT', `volume ${volumeId} is encrypted`, {
        fix: 'only a pod in a machine of its own, with the key, can use it',
      });
    }
    if (start.every((byte) => byte === 0)) await runProgram('mkfs.ext4', '-q', '-F', device);
    await mkdir(target, { recursive: true, mode: 0o750 });
    await runProgram(
      'mount',
      '-t',
      fileSystem,
      ...(options.length === 0 ? [] : ['-o', options.join(',')]),
      device,
      target,
    );
    // The file system may be mounted writable elsewhere; only this place of it is not.
    if (readOnly) await runProgram('mount', '-o', 'remount,bind,ro', target);
  }

  async #leave({ target, readOnly, options, key }: Publication, device: string): Promise<void> {
    await mkdir(target, { recursive: true, mode: 0o750 });
    await mkdir(this.#folderOf(target), { recursive: true, mode: 0o700 });
    const metadata = key === undefined ? {} : { 'encrypt-type': 'luks2', 'kbs-key-id': key.replace(/^kbs:\/\/\//, '') };
    const info = {
      'volume-type': 'block',
      device,
      fstype: fileSystem,
      metadata,
      options: [...options, ...(readOnly ? ['ro'] : [])],
    };
    await writeFile(join(this.#folderOf(target), 'mountInfo.json'), JSON.stringify(info), { mode: 0o600 });
  }

  /** Kata's naming: base64url of the path, padded. */
  #folderOf(target: string): string {
    const name = Buffer.from(target).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
    return join(this.#directVolumes, name);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

/** The device's own node over a file: the kubelet finds it through the file. */
async function bindDevice(device: string, target: string): Promise<void> {
  if (await isMounted(target)) return;
  await mkdir(join(target, '..'), { recursive: true, mode: 0o750 });
  await writeFile(target, '', { mode: 0o660 });
  await runProgram('mount', '--bind', device, target);
}

async function isMounted(path: string): Promise<boolean> {
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  return table.split('\n').some((line) => line.split(' ')[4] === path.replaceAll(' ', '\\040'));
}
