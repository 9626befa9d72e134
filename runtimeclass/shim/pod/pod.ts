import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { SealpodError } from '@sealpod/protocol/errors';
import { TaskExitSchema, TaskOOMSchema } from '@sealpod/protocol/gen/containerd/events_pb';
import { Status as TaskStatus } from '@sealpod/protocol/gen/containerd/task_types_pb';
import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';
import { readConfiguration, type ShimConfiguration } from '../configuration.ts';
import type { EventPublisher } from '../events/publisher.ts';
import { type GuestConnection, isNotFound } from '../guest/connection.ts';
import type { Logger } from '../log.ts';
import type { Specification } from '../oci/specification.ts';
import { refuseUnsupported } from '../oci/unsupported.ts';
import { attachVolumes, hasVolumes } from '../volumes/attach.ts';
import { type Container, readSpecification } from './container.ts';
import { createInGuest } from './guest-container.ts';
import { startGuest } from './guest-setup.ts';
import { GuestProcess, type StandardStreams } from './process.ts';
import { RecordedMachine } from './recorded-machine.ts';
import { saveTerminationMessage, writeTerminationMessage } from './termination-message.ts';

/** Exit status of what ran in a machine that is gone. */
const killedStatus = 137;
const removalSeconds = 10;
const attachMs = 60_000;
/** How long a guest may take to write out its volumes. */
const writeBackMs = 30_000;

export interface PodOptions {
  /** Where the shim listens; the state file stands beside it. */
  readonly socketPath: string;
  readonly publisher: EventPublisher;
  readonly log: Logger;
}

/** One pod: its machine, its guest and its containers. All it knows is in memory; State never asks the guest. */
export class Pod {
  readonly containers = new Map<string, Container>();
  readonly #options: PodOptions;
  #sandboxId = '';
  #configuration: ShimConfiguration | undefined;
  #recorded: RecordedMachine | undefined;
  #guest: GuestConnection | undefined;
  #stopping: Promise<void> | undefined;
  /** Calls of Create under way: a machine may take minutes to start. */
  #creating = 0;
  #hasVolumes = false;
  #isLost = false;

  constructor(options: PodOptions) {
    this.#options = options;
  }

  get sandboxId(): string {
    return this.#sandboxId;
  }

  /** The connection to the guest. @throws TtrpcError failed precondition before the sandbox is created. */
  get guest(): GuestConnection {
    if (this.#guest === undefined) throw new TtrpcError(Status.failedPrecondition, 'the sandbox is not running');
    return this.#guest;
  }

  get #agentTimeout(): { timeoutMs: number } {
    return { timeoutMs: (this.#configuration?.agentTimeout ?? 60) * 1000 };
  }

  /**
   * Task.Create: for a sandbox the machine is started first; then the container is created in the guest, which pulls its
   * image. A sandbox that fails leaves no machine behind.
   */
  async create(id: string, bundle: string, streams: StandardStreams, configPath: string): Promise<Container> {
    this.#creating++;
    try {
      return await this.#create(id, bundle, streams, configPath);
    } finally {
      this.#creating--;
    }
  }

  async #create(id: string, bundle: string, streams: StandardStreams, configPath: string): Promise<Container> {
    if (this.containers.has(id)) throw new TtrpcError(Status.alreadyExists, `container ${id} exists`);
    const { specification, kind } = readSpecification(bundle);
    refuseUnsupported(specification, kind);
    if (kind === 'pod_container') return this.#createContainer(id, bundle, streams, specification, kind);
    if (this.#recorded !== undefined) throw new TtrpcError(Status.alreadyExists, 'this shim has its sandbox already');
    this.#sandboxId = id;
    const configuration = readConfiguration(configPath);
    this.#configuration = configuration;
    const { socketPath, log } = this.#options;
    const recorded = new RecordedMachine({
      id,
      bundle,
      socketPath,
      hypervisorSocket: configuration.hypervisorSocket,
      log,
    });
    this.#recorded = recorded;
    try {
      const guest = await startGuest(recorded.machine, id, specification, configuration, this.#options.log);
      this.#guest = guest;
      void guest.lost.then((reason) => this.#guestLost(reason));
      void this.#watchMemory(guest);
      return await this.#createContainer(id, bundle, streams, specification, kind);
    } catch (thrown) {
      await this.stop(`the sandbox could not be created: ${String(thrown)}`);
      throw thrown;
    }
  }

  async #createContainer(
    id: string,
    bundle: string,
    streams: StandardStreams,
    specification: Specification,
    kind: Container['kind'],
  ): Promise<Container> {
    const guest = this.guest;
    const configuration = this.#configuration;
    const machine = this.#recorded?.machine;
    if (configuration === undefined || machine === undefined)
      throw new SealpodError('INTERNAL', 'a container before its sandbox');
    const volumes = await attachVolumes(specification, (volume) => machine.attachVolume(volume, attachMs));
    this.#hasVolumes ||= hasVolumes(volumes);
    const created = { id, bundle, specification, kind };
    const updates = await createInGuest(guest, configuration, created, volumes, this.#options.log);
    const container: Container = {
      id,
      bundle,
      kind,
      specification,
      process: new GuestProcess(id, '', streams, guest, this.#options.log),
      execs: new Map(),
      removal: undefined,
    };
    this.containers.set(id, container);
    void container.process.exited.then(() => updates.close());
    this.#announceExit(container.process);
    return container;
  }

  /** Starts the first process of a container. The end of a sandbox's first process is the end of the pod. */
  async start(container: Container): Promise<void> {
    const { id, kind } = container;
    await container.process.start(
      () => this.guest.call((agent) => agent.startContainer({ containerId: id }, this.#agentTimeout)),
      {
        silent: kind === 'pod_sandbox',
        ending: async () => {
          await saveTerminationMessage(container, this.guest, { log: this.#options.log, ...this.#agentTimeout });
          if (kind === 'pod_container') void this.remove(container);
          else await this.stop('its first process has ended');
        },
      },
    );
  }

  /** Adds a process; it runs when started. */
  addExec(container: Container, execId: string, streams: StandardStreams): GuestProcess {
    const added = new GuestProcess(container.id, execId, streams, this.guest, this.#options.log);
    this.#announceExit(added);
    return added;
  }

  /** Removes a container from the guest, once. Failures are logged: the guest ends with the pod. */
  remove(container: Container): Promise<void> {
    container.removal ??= (async () => {
      if (this.#stopping !== undefined) return;
      try {
        await this.guest
          .call((agent) =>
            agent.signalProcess({ containerId: container.id, execId: '', signal: 9 }, this.#agentTimeout),
          )
          .catch((error) => this.#options.log.debug('signal before removal', { error }));
        await this.guest.call((agent) =>
          agent.removeContainer({ containerId: container.id, timeout: removalSeconds }, this.#agentTimeout),
        );
      } catch (error) {
        if (!isNotFound(error)) this.#options.log.info('cannot remove a container', { container: container.id, error });
      }
    })();
    return container.removal;
  }

  /** Stops the machine, once; all that ran in it has then exited with 137, the sandbox last. */
  stop(reason: string): Promise<void> {
    this.#stopping ??= this.#stop(reason);
    return this.#stopping;
  }

  async #stop(reason: string): Promise<void> {
    this.#options.log.info('stopping the machine', { reason });
    await this.#writeBack();
    this.#guest?.close();
    const sandbox = this.containers.get(this.#sandboxId);
    for (const container of this.containers.values()) {
      for (const { process: exec } of container.execs.values()) exec.finish(killedStatus);
      if (container !== sandbox) container.process.finish(killedStatus);
    }
    await this.#recorded?.stop();
    // Only now may the network of the pod be taken down, which follows the sandbox's exit.
    sandbox?.process.finish(killedStatus);
  }

  /** The machine ends without warning: before that, the guest takes its volumes off. */
  async #writeBack(): Promise<void> {
    if (!this.#hasVolumes || this.#isLost) return;
    try {
      await this.#guest?.call((agent) => agent.destroySandbox({}, { timeoutMs: writeBackMs }));
    } catch (error) {
      this.#options.log.info('the guest did not take its volumes off', { error });
    }
  }

  /** Nothing of the pod can go on. The reason is put where Kubernetes shows it, beside the exit status of each container. */
  async #guestLost(reason: string): Promise<void> {
    this.#isLost = true;
    if (this.#stopping !== undefined) return;
    for (const container of this.containers.values())
      if (Pod.running(container.process)) writeTerminationMessage(container, reason, this.#options.log);
    await this.stop(`the guest is gone: ${reason}`);
  }

  /** Whether there is, or may be, a machine that was not stopped. */
  get machineLeft(): boolean {
    return this.#recorded?.left ?? false;
  }

  /** True when nothing is left that containerd may ask for, and nothing is being made that will still be wanted. */
  get idle(): boolean {
    return this.containers.size === 0 && (this.#creating === 0 || this.#stopping !== undefined);
  }

  #announceExit(task: GuestProcess): void {
    void task.exited.then((exit) =>
      this.#options.publisher.publish('/tasks/exit', TaskExitSchema, {
        containerId: task.containerId,
        id: task.execId === '' ? task.containerId : task.execId,
        pid: process.pid,
        exitStatus: exit.status,
        exitedAt: timestampFromDate(exit.at),
      }),
    );
  }

  async #watchMemory(guest: GuestConnection): Promise<void> {
    while (this.#stopping === undefined) {
      try {
        const { containerId } = await guest.waitCall((agent) => agent.getOOMEvent({}));
        this.#options.publisher.publish('/tasks/oom', TaskOOMSchema, { containerId });
      } catch (error) {
        this.#options.log.debug('no more out-of-memory events', { error });
        return;
      }
    }
  }

  /** A container by its id. @throws TtrpcError not found. */
  container(id: string): Container {
    const found = this.containers.get(id);
    if (found === undefined) throw new TtrpcError(Status.notFound, `container ${id} not found`);
    return found;
  }

  /** A process by container and exec id (empty for the first). @throws TtrpcError not found. */
  process(id: string, execId: string): GuestProcess {
    const container = this.container(id);
    if (execId === '') return container.process;
    const exec = container.execs.get(execId);
    if (exec === undefined) throw new TtrpcError(Status.notFound, `exec ${execId} of container ${id} not found`);
    return exec.process;
  }

  /** Whether the process runs, and not merely exists. */
  static running(task: GuestProcess): boolean {
    return task.status === TaskStatus.RUNNING || task.status === TaskStatus.PAUSED;
  }
}
