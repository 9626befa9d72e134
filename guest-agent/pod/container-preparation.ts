import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { CreateContainerRequest, Storage } from '@sealpod/protocol/gen/kata/agent_pb';
import type { Spec } from '@sealpod/protocol/gen/kata/oci_pb';
import type { DuringStage } from '../boot/stages.ts';
import type { RunCommand } from './command.ts';
import { Container } from './container.ts';
import { checkedSpec } from './container-request.ts';
import { invalidArgument } from './failures.ts';
import type { ImagePuller } from './image-puller.ts';
import { unmountBelow } from './mounts.ts';
import type { PodPaths } from './paths.ts';
import type { StorageTable } from './storage.ts';
import { isSealed, type SecretUnsealer, unsealEnvironment } from './unsealing.ts';
import type { PersistentVolumes } from './volumes/persistent-volumes.ts';
import { openVolumeDevices } from './volumes/volume-devices.ts';

const guestPullDriver = 'image_guest_pull';
const containerTypeKeys = ['io.kubernetes.cri.container-type', 'io.kubernetes.cri-o.ContainerType'];
const containerNameKeys = ['io.kubernetes.cri.container-name', 'io.kubernetes.cri-o.ContainerName'];

export interface PreparationDependencies {
  readonly images: ImagePuller;
  readonly run: RunCommand;
  readonly paths: PodPaths;
  readonly unsealer: SecretUnsealer | undefined;
  /** Runs what takes time of a container's start, to tell of it. */
  readonly during: DuringStage;
}

/** Makes ready what a container starts from: its image, its storages, its devices, its environment. */
export class ContainerPreparation {
  readonly #with: PreparationDependencies;
  readonly #storages: StorageTable;
  readonly #volumes: PersistentVolumes;

  constructor(dependencies: PreparationDependencies, storages: StorageTable, volumes: PersistentVolumes) {
    this.#with = dependencies;
    this.#storages = storages;
    this.#volumes = volumes;
  }

  /** A container that can start. Where it fails, nothing of it is left. */
  async prepare(id: string, request: CreateContainerRequest, signal: AbortSignal): Promise<Container> {
    const spec = checkedSpec(request);
    const bundle = join(this.#with.paths.root, id);
    const attached: string[] = [];
    try {
      await mkdir(bundle, { mode: 0o711 });
      const isSandbox = containerTypeKeys.some((key) => spec.Annotations[key] === 'sandbox');
      const container = containerName(id, spec);
      const rootfs = await this.#attachStorages(request.storages, { bundle, container, isSandbox, attached, signal });
      const volumeDevices = await openVolumeDevices(request.devices, spec, this.#volumes);
      if (spec.Process !== undefined && !isSandbox) await this.#unseal(container, spec.Process);
      return new Container({ id, spec, bundle, rootfs, isSandbox, mountPoints: attached, volumeDevices });
    } catch (thrown) {
      await this.discard(bundle, attached);
      throw thrown;
    }
  }

  /** Takes off and removes what was made ready. */
  async discard(bundle: string, mountPoints: readonly string[]): Promise<void> {
    await this.#with.images.release(bundle);
    await unmountBelow(bundle, this.#with.run);
    await rm(bundle, { recursive: true, force: true });
    for (const mountPoint of mountPoints) await this.#storages.detach(mountPoint);
  }

  async #attachStorages(
    storages: readonly Storage[],
    to: { bundle: string; container: string; isSandbox: boolean; attached: string[]; signal: AbortSignal },
  ): Promise<string> {
    const rootfs = join(to.bundle, 'rootfs');
    for (const storage of storages) {
      if (storage.driver !== guestPullDriver) {
        to.attached.push(await this.#storages.attach(storage));
        continue;
      }
      if (storage.mountPoint !== rootfs)
        throw invalidArgument(`an image belongs at ${rootfs}, not at ${storage.mountPoint}`);
      if (to.isSandbox) continue;
      const { images, during } = this.#with;
      const subject = { container: to.container, image: storage.source };
      await during('pulling', subject, () => images.pull(storage.source, to.bundle, to.signal));
    }
    return rootfs;
  }

  async #unseal(container: string, process: { Env: string[] }): Promise<void> {
    const unseal = (): Promise<string[]> => unsealEnvironment(process.Env, this.#with.unsealer);
    process.Env = await (process.Env.some(isSealed) ? this.#with.during('unsealing', { container }, unseal) : unseal());
  }
}

/** What the container is called in its pod; its id where the request does not say. */
export function containerName(id: string, spec: Spec): string {
  return containerNameKeys.map((key) => spec.Annotations[key]).find(Boolean) ?? id;
}
