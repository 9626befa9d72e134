import { fromBinary } from '@bufbuild/protobuf';
import { type Any, timestampFromDate } from '@bufbuild/protobuf/wkt';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  TaskCreateSchema,
  TaskDeleteSchema,
  TaskExecAddedSchema,
  TaskExecStartedSchema,
  TaskPausedSchema,
  TaskResumedSchema,
  TaskStartSchema,
} from '@sealpod/protocol/gen/containerd/events_pb';
import { OptionsSchema } from '@sealpod/protocol/gen/containerd/runtime_options_pb';
import { Status as TaskStatus } from '@sealpod/protocol/gen/containerd/task_types_pb';
import type { CreateTaskRequest, ExecProcessRequest } from '@sealpod/protocol/gen/containerd/task_v2_pb';
import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';
import type { EventPublisher } from '../events/publisher.ts';
import { isNotFound } from '../guest/connection.ts';
import { processToAgent, resourcesToAgent } from '../oci/to-agent.ts';
import { Pod } from '../pod/pod.ts';
import type { Exit } from '../pod/process.ts';
import { toMetrics } from './metrics.ts';

/** The requests of task service versions 2 and 3, whose messages have the same fields. */
type Target = { readonly id: string; readonly execId: string };
type CreateRequest = Omit<CreateTaskRequest, '$typeName' | '$unknown'>;
type ExecRequest = Omit<ExecProcessRequest, '$typeName' | '$unknown'>;

const killedStatus = 137;

/** The path in the runtime options of containerd's configuration; empty where there are none, or of another type. */
function configurationPath(options: Any | undefined): string {
  if (options === undefined || !/(^|\/)runtimeoptions\.v1\.Options$/.test(options.typeUrl)) return '';
  return fromBinary(OptionsSchema, options.value).configPath;
}

/** An Any whose value is JSON, as containerd packs OCI types. */
function jsonOf<T>(any: Any | undefined, what: string): T {
  try {
    return JSON.parse(new TextDecoder().decode(any?.value)) as T;
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', `${what} is not JSON`, { cause });
  }
}

const exitFields = (exit: Exit) => ({ exitStatus: exit.status, exitedAt: timestampFromDate(exit.at) });

/**
 * containerd's task service for one pod (`containerd.task.v2.Task`, and its twin version 3). Errors of guest and adaptor
 * pass through as they came: containerd puts their text into the pod's event.
 */
export class TaskService {
  readonly #pod: Pod;
  readonly #publisher: EventPublisher;
  readonly #shutdown: () => void;

  /** `shutdown` is called when nothing is left to serve. */
  constructor(pod: Pod, publisher: EventPublisher, shutdown: () => void) {
    this.#pod = pod;
    this.#publisher = publisher;
    this.#shutdown = shutdown;
  }

  /** The methods by name, for `TtrpcServer.addService`. */
  get implementation() {
    return {
      create: (request: CreateRequest) => this.#create(request),
      start: (request: Target) => this.#start(request),
      state: (request: Target) => this.#state(request),
      delete: (request: Target) => this.#delete(request),
      pids: ({ id }: { readonly id: string }) => {
        this.#pod.container(id);
        return { processes: [{ pid: process.pid }] };
      },
      pause: ({ id }: { readonly id: string }) => this.#pause(id),
      resume: ({ id }: { readonly id: string }) => this.#resume(id),
      kill: (request: Target & { readonly signal: number; readonly all: boolean }) => this.#kill(request),
      exec: (request: ExecRequest) => this.#exec(request),
      resizePty: async (request: Target & { readonly width: number; readonly height: number }) => {
        await this.#pod.process(request.id, request.execId).resize(request.height, request.width);
        return {};
      },
      closeIO: (request: Target & { readonly stdin: boolean }) => {
        const task = this.#pod.process(request.id, request.execId);
        if (request.stdin) task.closeInput();
        return {};
      },
      update: async ({ id, resources }: { readonly id: string; readonly resources?: Any | undefined }) => {
        this.#pod.container(id);
        const limits = resourcesToAgent(jsonOf(resources, 'Update.resources'));
        await this.#pod.guest.call((agent) => agent.updateContainer({ containerId: id, resources: limits }));
        return {};
      },
      wait: async (request: Target) => exitFields(await this.#pod.process(request.id, request.execId).exited),
      stats: async ({ id }: { readonly id: string }) => {
        this.#pod.container(id);
        const response = await this.#pod.guest.call((agent) => agent.statsContainer({ containerId: id }));
        return { stats: toMetrics(response) };
      },
      connect: ({ id }: { readonly id: string }) => ({
        shimPid: process.pid,
        taskPid: this.#pod.containers.has(id) ? process.pid : 0,
        version: '2',
      }),
      shutdown: ({ now }: { readonly now: boolean }) => {
        if (this.#pod.idle || now) this.#shutdown();
        return {};
      },
    };
  }

  async #create(request: CreateRequest) {
    const { id, bundle, rootfs, stdin, stdout, stderr, terminal, checkpoint } = request;
    if (checkpoint !== '')
      throw new SealpodError('UNSUPPORTED', 'checkpoints of confidential guests are not supported');
    const streams = { stdin, stdout, stderr, terminal };
    await this.#pod.create(id, bundle, streams, configurationPath(request.options));
    const { pid } = process;
    this.#publisher.publish('/tasks/create', TaskCreateSchema, {
      containerId: id,
      bundle,
      rootfs,
      io: streams,
      pid,
    });
    return { pid };
  }

  async #start({ id, execId }: Target) {
    const container = this.#pod.container(id);
    const { pid } = process;
    if (execId === '') {
      await this.#pod.start(container);
      this.#publisher.publish('/tasks/start', TaskStartSchema, { containerId: id, pid });
      return { pid };
    }
    const exec = container.execs.get(execId);
    if (exec === undefined) throw new TtrpcError(Status.notFound, `exec ${execId} of container ${id} not found`);
    if (!Pod.running(container.process)) {
      throw new TtrpcError(Status.failedPrecondition, `container ${id} is not running`);
    }
    const specification = processToAgent(exec.specification);
    await exec.process.start(() =>
      this.#pod.guest.call((agent) => agent.execProcess({ containerId: id, execId, process: specification })),
    );
    this.#publisher.publish('/tasks/exec-started', TaskExecStartedSchema, { containerId: id, execId, pid });
    return { pid };
  }

  #state({ id, execId }: Target) {
    const task = this.#pod.process(id, execId);
    return {
      id,
      bundle: this.#pod.container(id).bundle,
      pid: process.pid,
      status: task.status,
      ...task.streams,
      execId,
      ...(task.exit && exitFields(task.exit)),
    };
  }

  async #delete({ id, execId }: Target) {
    const container = this.#pod.container(id);
    const task = this.#pod.process(id, execId);
    if (Pod.running(task)) throw new TtrpcError(Status.failedPrecondition, 'the process is still running');
    if (execId === '') {
      if (id === this.#pod.sandboxId) await this.#pod.stop('the sandbox is deleted');
      else await this.#pod.remove(container);
    }
    // One that never ran has no exit of its own.
    task.finish(killedStatus);
    const exit = await task.exited;
    if (execId === '') {
      this.#pod.containers.delete(id);
      this.#publisher.publish('/tasks/delete', TaskDeleteSchema, {
        containerId: id,
        pid: process.pid,
        ...exitFields(exit),
      });
    } else {
      container.execs.delete(execId);
    }
    return { pid: process.pid, ...exitFields(exit) };
  }

  async #kill({ id, execId, signal, all }: Target & { readonly signal: number; readonly all: boolean }) {
    const container = this.#pod.container(id);
    const task = this.#pod.process(id, all ? '' : execId);
    if (task.exit !== undefined) throw new TtrpcError(Status.notFound, 'the process has already finished');
    if (execId === '' && signal === 9 && id === this.#pod.sandboxId) {
      // The answer does not wait: the exit is told when the machine is gone.
      void this.#pod.stop('the sandbox is killed');
      return {};
    }
    if (task.status === TaskStatus.CREATED) {
      if (execId === '') await this.#pod.remove(container);
      task.finish(killedStatus);
      return {};
    }
    try {
      await task.signal(signal);
    } catch (thrown) {
      // It ended in the meantime; its exit is on the way.
      if (!isNotFound(thrown)) throw thrown;
    }
    return {};
  }

  #exec(request: ExecRequest) {
    const { id, execId, terminal, stdin, stdout, stderr } = request;
    const container = this.#pod.container(id);
    if (execId === '') throw new TtrpcError(Status.invalidArgument, 'an exec needs an id');
    if (container.execs.has(execId)) throw new TtrpcError(Status.alreadyExists, `exec ${execId} exists`);
    container.execs.set(execId, {
      process: this.#pod.addExec(container, execId, { stdin, stdout, stderr, terminal }),
      specification: { ...jsonOf<Record<string, unknown>>(request.spec, 'Exec.spec'), terminal },
    });
    this.#publisher.publish('/tasks/exec-added', TaskExecAddedSchema, { containerId: id, execId });
    return {};
  }

  async #pause(id: string) {
    const task = this.#pod.process(id, '');
    if (task.status !== TaskStatus.RUNNING) throw new TtrpcError(Status.failedPrecondition, `${id} is not running`);
    await this.#pod.guest.call((agent) => agent.pauseContainer({ containerId: id }));
    task.status = TaskStatus.PAUSED;
    this.#publisher.publish('/tasks/paused', TaskPausedSchema, { containerId: id });
    return {};
  }

  async #resume(id: string) {
    const task = this.#pod.process(id, '');
    if (task.status !== TaskStatus.PAUSED) throw new TtrpcError(Status.failedPrecondition, `${id} is not paused`);
    await this.#pod.guest.call((agent) => agent.resumeContainer({ containerId: id }));
    task.status = TaskStatus.RUNNING;
    this.#publisher.publish('/tasks/resumed', TaskResumedSchema, { containerId: id });
    return {};
  }
}
