import { mkdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import type {
  CreateContainerRequest,
  CreateSandboxRequest,
  ExecProcessRequest,
} from '@sealpod/protocol/gen/kata/agent_pb';
import { BoxSchema, type LinuxResources } from '@sealpod/protocol/gen/kata/oci_pb';
import type { DuringStage } from '../boot/stages.ts';
import type { RunCommand } from './command.ts';
import { checkedId, realVolumePath } from './confinement.ts';
import type { Container } from './container.ts';
import { ContainerPreparation, containerName } from './container-preparation.ts';
import { terminalSize } from './container-request.ts';
import { copyFile, isRegularFile } from './copy-file.ts';
import type { ContainerProcess, Crun } from './crun.ts';
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from './failures.ts';
import type { TerminalSize } from './guest-process.ts';
import type { ImagePuller } from './image-puller.ts';
import { resolveBindSources, unmountBelow } from './mounts.ts';
import { runtimeProcess, runtimeResources, runtimeSpec } from './oci-spec.ts';
import { OutOfMemoryEvents } from './out-of-memory.ts';
import type { PodPaths } from './paths.ts';
import { setResolver } from './resolver.ts';
import { checkSignal, killAll, signalContainer, signalProcess } from './signals.ts';
import { StorageTable } from './storage.ts';
import { applySysctls } from './sysctl.ts';
import { type FileCopy, type SecretUnsealer, unsealEnvironment, unsealFile } from './unsealing.ts';
import { readStart } from './volume-file.ts';
import { PersistentVolumes, type VolumeDependencies } from './volumes/persistent-volumes.ts';

export interface SandboxDependencies {
  readonly images: ImagePuller;
  readonly crun: Crun;
  readonly run: RunCommand;
  readonly paths: PodPaths;
  readonly unsealer: SecretUnsealer | undefined;
  /** Where disks and the keys of encrypted ones come from. */
  readonly volumes: Omit<VolumeDependencies, 'run'>;
  /** Keeps containers from devices that their specification does not name. */
  readonly deviceRules: boolean;
  /** Runs what takes time of a container's start, to tell of it. */
  readonly during: DuringStage;
}

/** Folders below the root that are no container's. */
const reservedNames = new Set(['shared', 'sandbox', 'image', 'layers']);
const terminationPathKey = 'io.kubernetes.container.terminationMessagePath';
const defaultTerminationPath = '/dev/termination-log';
const maxTerminationBytes = 4096;
const execsKeptMs = 10_000;

/** The pod in this machine: its containers, their processes, and what they share. */
export class Sandbox {
  readonly #with: SandboxDependencies;
  readonly #containers = new Map<string, Container>();
  readonly #creating = new Set<string>();
  readonly #storages: StorageTable;
  readonly #preparation: ContainerPreparation;
  readonly outOfMemory = new OutOfMemoryEvents();
  #created = false;
  #execCount = 0;
  #files: Promise<unknown> = Promise.resolve();

  constructor(dependencies: SandboxDependencies) {
    this.#with = dependencies;
    const { paths, run } = dependencies;
    const volumes = new PersistentVolumes({ ...dependencies.volumes, run });
    this.#storages = new StorageTable(paths.root, run, volumes);
    this.#preparation = new ContainerPreparation(dependencies, this.#storages, volumes);
  }

  get sharedFolder(): string {
    return join(this.#with.paths.root, 'shared/containers');
  }

  /** Host name, storages and name resolution of the pod. Throws ALREADY_EXISTS for a second sandbox. */
  async create(request: CreateSandboxRequest): Promise<void> {
    if (this.#created) throw alreadyExists('the sandbox exists already');
    if (request.sandboxPidns)
      throw new SealpodError('UNSUPPORTED', 'a process namespace shared by the pod is not supported');
    if (request.kernelModules.length > 0) throw new SealpodError('UNSUPPORTED', 'kernel modules cannot be loaded');
    this.#created = true;
    const { paths } = this.#with;
    for (const folder of ['shared/containers', 'sandbox'])
      await mkdir(join(paths.root, folder), { recursive: true, mode: 0o755 });
    if (request.hostname !== '') await writeFile(join(paths.sysctl, 'kernel/hostname'), request.hostname);
    for (const storage of request.storages) await this.#storages.attach(storage);
    if (request.dns.length > 0) await setResolver(request.dns, this.#with.paths, this.#with.run);
  }

  /** Ends all containers and takes off all mounts. */
  async destroy(): Promise<void> {
    for (const id of [...this.#containers.keys()]) await this.remove(id, 0);
    await this.#storages.close();
    if (this.#created) await unmountBelow(this.#with.paths.resolvConf, this.#with.run);
    this.outOfMemory.close();
    this.#created = false;
  }

  async createContainer(request: CreateContainerRequest, signal: AbortSignal): Promise<void> {
    const id = checkedId(request.containerId);
    if (reservedNames.has(id)) throw invalidArgument(`container id ${id} is reserved`);
    if (this.#containers.has(id) || this.#creating.has(id)) throw alreadyExists(`container ${id} exists already`);
    this.#creating.add(id);
    try {
      this.#containers.set(id, await this.#preparation.prepare(id, request, signal));
    } finally {
      this.#creating.delete(id);
    }
  }

  async start(id: string): Promise<void> {
    const container = this.container(id);
    const begin = (): Promise<boolean> => container.start(() => this.#run(container));
    const subject = { container: containerName(id, container.spec) };
    const fresh = await (container.isSandbox ? begin() : this.#with.during('starting', subject, begin));
    if (!fresh) throw failedPrecondition(`container ${id} was started already`);
  }

  async exec(request: ExecProcessRequest): Promise<void> {
    const container = this.container(request.containerId);
    const execId = checkedId(request.execId);
    const { process } = request;
    if (process === undefined) throw invalidArgument('the exec has no process');
    if (container.state !== 'running' || container.isSandbox)
      throw failedPrecondition(`container ${container.id} has no running process`);
    if (container.execs.has(execId)) throw alreadyExists(`exec ${execId} exists already`);
    const { paths, crun } = this.#with;
    const scratch = join(paths.root, container.id, `exec-${++this.#execCount}`);
    const environment = await unsealEnvironment(process.Env, this.#with.unsealer);
    const json = { ...runtimeProcess(process), env: environment };
    const started = await crun
      .exec(container.id, scratch, json, terminalSize(process))
      .finally(() => rm(scratch, { recursive: true, force: true }));
    container.execs.set(execId, started);
  }

  /** Signals a process; all of the container's for SIGKILL to the first. Throws NOT_FOUND where it is gone. */
  async signal(id: string, execId: string, signal: number): Promise<void> {
    const container = this.container(id);
    checkSignal(signal);
    if (isFirst(id, execId)) return signalContainer(container, this.cgroupOf(id), signal);
    const process = container.execs.get(execId);
    if (process === undefined) throw notFound(`exec ${execId} is not running`);
    return signalProcess(process, signal);
  }

  /** Exit status of a process, when it has one. */
  async wait(id: string, execId: string): Promise<number> {
    const container = this.container(id);
    if (isFirst(id, execId)) return container.exited;
    const process = this.#exec(container, execId);
    const status = await process.exited;
    // Others may still wait, or read what the process wrote last.
    setTimeout(() => {
      if (container.execs.get(execId) === process) container.execs.delete(execId);
    }, execsKeptMs).unref();
    return status;
  }

  /** A process whose streams are used; waits for the first process of a container that is still to start. */
  async process(id: string, execId: string): Promise<ContainerProcess> {
    const container = this.container(id);
    if (!isFirst(id, execId)) return this.#exec(container, execId);
    const process = container.process ?? (await container.started);
    if (process === undefined) throw notFound(`container ${id} has no process`);
    return process;
  }

  /**
   * Sets the size of a terminal. A container that has not started gets it at its start; a size without rows or columns
   * is what clients without a terminal send, and changes nothing.
   */
  async resize(id: string, execId: string, size: TerminalSize): Promise<void> {
    const container = this.container(id);
    if (size.rows === 0 || size.columns === 0) return;
    if (isFirst(id, execId) && container.state === 'created') {
      if (!container.spec.Process?.Terminal) throw failedPrecondition('the process has no terminal');
      container.spec.Process.ConsoleSize = create(BoxSchema, { Height: size.rows, Width: size.columns });
      return;
    }
    (await this.process(id, execId)).resize(size);
  }

  /** Whether a container is the pause container, which never writes. */
  isSandbox(id: string): boolean {
    return this.container(id).isSandbox;
  }

  /** @param timeoutSeconds how long processes may take to end; 0 waits for ever */
  async remove(id: string, timeoutSeconds: number): Promise<void> {
    const container = this.container(id);
    if (container.process !== undefined && container.state !== 'ended') {
      await killAll(container, this.cgroupOf(id));
      await within(container.exited, timeoutSeconds, `container ${id} does not end`);
    }
    container.end();
    this.outOfMemory.forget(id);
    if (!container.isSandbox) await this.#with.crun.delete(id);
    await this.#preparation.discard(container.bundle, container.mountPoints);
    this.#containers.delete(id);
    // crun leaves the inner one of a container that it could not start.
    for (const group of [join(this.#cgroup(id), 'container'), this.#cgroup(id)]) {
      await rmdir(group).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
      });
    }
  }

  async update(id: string, resources: LinuxResources | undefined): Promise<void> {
    const container = this.container(id);
    if (resources === undefined || container.isSandbox) return;
    await this.#with.crun.update(id, runtimeResources(resources), join(container.bundle, 'update'));
  }

  async pause(id: string): Promise<void> {
    await this.#with.crun.pause(this.container(id).id);
  }

  async resume(id: string): Promise<void> {
    await this.#with.crun.resume(this.container(id).id);
  }

  /** The cgroup whose files tell what a container uses. */
  cgroupOf(id: string): string {
    return join(this.#cgroup(this.container(id).id), 'container');
  }

  async copy(request: FileCopy): Promise<void> {
    // The key broker is asked before the turn is taken: other files do not wait for it.
    const opened = isRegularFile(request) ? await unsealFile(request, this.#with.unsealer) : request;
    await this.#withFiles(() => copyFile(this.sharedFolder, opened));
  }

  /** What a container left as its termination message; empty where there is none. */
  async terminationMessage(id: string): Promise<string> {
    const { spec } = this.container(id);
    const destination = spec.Annotations[terminationPathKey] ?? defaultTerminationPath;
    const mount = spec.Mounts.find((item) => item.destination === destination);
    if (mount === undefined) return '';
    return readStart(await realVolumePath(this.#with.paths.root, mount.source), maxTerminationBytes);
  }

  /** Throws NOT_FOUND. */
  container(id: string): Container {
    const container = this.#containers.get(checkedId(id));
    if (container === undefined) throw notFound(`container ${id} does not exist`);
    return container;
  }

  #exec(container: Container, execId: string): ContainerProcess {
    const process = container.execs.get(execId);
    if (process === undefined) throw notFound(`exec ${execId} does not exist in container ${container.id}`);
    return process;
  }

  #cgroup(id: string): string {
    return join(this.#with.paths.cgroup, this.#with.paths.cgroupParent, id);
  }

  async #run(container: Container): Promise<ContainerProcess | undefined> {
    const { paths, crun } = this.#with;
    const { spec, rootfs, bundle, id, volumeDevices } = container;
    // Kubernetes gives those of a pod with its sandbox.
    await applySysctls(paths.sysctl, spec.Linux?.Sysctl ?? {});
    if (container.isSandbox) return undefined;
    const process = await this.#withFiles(async () => {
      const bindSources = await resolveBindSources(paths.root, spec.Mounts);
      const cgroupsPath = `/${paths.cgroupParent}/${id}/container`;
      const { deviceRules } = this.#with;
      const json = runtimeSpec(spec, { rootfs, cgroupsPath, bindSources, volumeDevices, deviceRules });
      return crun.run(id, bundle, json, spec.Process === undefined ? undefined : terminalSize(spec.Process));
    });
    this.outOfMemory.watch(id, this.#cgroup(id));
    return process;
  }

  /** Copies from the host and mounts of copied files take turns: a link must not slip in between check and mount. */
  #withFiles<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#files.then(work);
    this.#files = turn.catch(() => undefined);
    return turn;
  }
}

/** Shims name a container's first process by no exec id, or by the container's own. */
function isFirst(id: string, execId: string): boolean {
  return execId === '' || execId === id;
}

async function within(event: Promise<unknown>, seconds: number, message: string): Promise<void> {
  if (seconds === 0) {
    await event;
    return;
  }
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new SealpodError('INTERNAL', message)), seconds * 1000);
  await Promise.race([event, late.promise]).finally(() => clearTimeout(timer));
}
