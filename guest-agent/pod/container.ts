import type { Spec } from '@sealpod/protocol/gen/kata/oci_pb';
import type { ContainerProcess } from './crun.ts';
import type { VolumeDevice } from './volumes/persistent-volumes.ts';

const killedStatus = 128 + 9;

/** What the pod service knows of one container. */
export class Container {
  readonly id: string;
  readonly spec: Spec;
  /** Folder of config.json and root file system. */
  readonly bundle: string;
  readonly rootfs: string;
  /** The pause container: it has no process, and lives until it is signalled. */
  readonly isSandbox: boolean;
  /** Mount points of storages that it uses. */
  readonly mountPoints: readonly string[];
  /** Disks that it may use. */
  readonly volumeDevices: readonly VolumeDevice[];
  /** Processes beside the first, by exec id. */
  readonly execs = new Map<string, ContainerProcess>();
  #state: 'created' | 'starting' | 'running' | 'ended' = 'created';
  #process: ContainerProcess | undefined;
  readonly #started = Promise.withResolvers<ContainerProcess | undefined>();
  readonly #exited = Promise.withResolvers<number>();

  constructor(
    fields: Pick<Container, 'id' | 'spec' | 'bundle' | 'rootfs' | 'isSandbox' | 'mountPoints' | 'volumeDevices'>,
  ) {
    this.id = fields.id;
    this.spec = fields.spec;
    this.bundle = fields.bundle;
    this.rootfs = fields.rootfs;
    this.isSandbox = fields.isSandbox;
    this.mountPoints = fields.mountPoints;
    this.volumeDevices = fields.volumeDevices;
  }

  get state(): 'created' | 'starting' | 'running' | 'ended' {
    return this.#state;
  }

  /** The first process; undefined before the start and for the pause container. */
  get process(): ContainerProcess | undefined {
    return this.#process;
  }

  /** Resolves with the first process when it starts; with undefined where none ever will. */
  get started(): Promise<ContainerProcess | undefined> {
    return this.#started.promise;
  }

  /** Exit status of the first process. */
  get exited(): Promise<number> {
    return this.#exited.promise;
  }

  /** Runs `start`, and follows the process it returns. False where the container is not new. A failed start can be repeated. */
  async start(start: () => Promise<ContainerProcess | undefined>): Promise<boolean> {
    if (this.#state !== 'created') return false;
    this.#state = 'starting';
    try {
      this.#process = await start();
    } catch (thrown) {
      this.#state = 'created';
      throw thrown;
    }
    this.#state = 'running';
    this.#started.resolve(this.#process);
    if (this.#process !== undefined) void this.#process.exited.then((status) => this.end(status));
    return true;
  }

  /** Marks the end: of the pause container, or of one that never ran. */
  end(status: number = killedStatus): void {
    this.#state = 'ended';
    this.#started.resolve(undefined);
    this.#exited.resolve(status);
  }
}
