import { appendFile } from 'node:fs/promises';
import type { DescMethod, Message } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import { AgentService, type ReadStreamRequest } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health, HealthCheckResponse_ServingStatus } from '@sealpod/protocol/gen/kata/health_pb';
import { streamOffset } from '@sealpod/protocol/stream-offset';
import type { RequestContext, ServiceImplementation, TtrpcServer } from '@sealpod/protocol/ttrpc';
import type { AgentPolicy, PolicyDecision } from '../agent-policy/agent-policy.ts';
import type { DuringStage } from '../boot/stages.ts';
import { type RunCommand, runCommand } from './command.ts';
import { type ContainerProcess, Crun, type CrunOptions } from './crun.ts';
import { invalidArgument } from './failures.ts';
import { bringCpusOnline, guestDetails, metrics } from './guest-details.ts';
import type { ImagePuller } from './image-puller.ts';
import { InputStream } from './input-stream.ts';
import { IpProgram } from './ip-program.ts';
import { GuestNetwork } from './network.ts';
import type { OutputBuffer } from './output-buffer.ts';
import { guestPaths, type PodPaths } from './paths.ts';
import { projectRequest } from './projection.ts';
import { Sandbox } from './sandbox.ts';
import { readStatistics } from './statistics.ts';
import type { SecretUnsealer } from './unsealing.ts';
import type { VolumeDependencies } from './volumes/persistent-volumes.ts';

/** Version of the agent protocol that is spoken (Kata's agent 4.1). */
const protocolVersion = '0.0.1';
const maxPrintedCharacters = 2048;
const terminationLog = 'termination_log';
const empty = Uint8Array.of();

export interface PodServiceOptions {
  readonly images: ImagePuller;
  readonly agentPolicy: AgentPolicy;
  /** Opens sealed secrets in environment variables; without it a container that has one is refused. */
  readonly dataHub?: SecretUnsealer;
  /** Where disks and the keys of encrypted ones come from; without it encrypted volumes are refused. */
  readonly volumes?: Omit<VolumeDependencies, 'run'>;
  /** Told to who asks for the agent's version. */
  readonly version: string;
  readonly paths?: PodPaths;
  readonly crun?: Omit<CrunOptions, 'state'>;
  readonly run?: RunCommand;
  /** Keeps containers from devices that their specification does not name; default true. Needs cgroup v2. */
  readonly deviceRules?: boolean;
  /** Runs what takes time of a container's start, to tell of it. */
  readonly during?: DuringStage;
  /** Hears of each request that the policy refuses, with what the policy printed. */
  readonly onDenied?: (denial: { readonly request: string; readonly reason: string }) => void;
}

export interface PodService {
  /** Adds `grpc.AgentService` and `grpc.Health`. */
  registerOn(server: TtrpcServer): void;
  /** Ends every container and takes off every mount. */
  close(): Promise<void>;
}

type Implementation = Partial<ServiceImplementation<typeof AgentService>>;

/**
 * Kata's agent API in the guest. Each request but Health is put to the agent policy before anything else is done with it,
 * by the name of its message and in the exact form of Kata's agent; a refusal is PERMISSION_DENIED
 * `… is blocked by policy: …`, except for reads of output: they are answered empty, and the output is thrown away, because
 * a container that nobody may listen to must not block on writing.
 */
export function createPodService(options: PodServiceOptions): PodService {
  const paths = options.paths ?? guestPaths;
  const run = options.run ?? runCommand;
  const crun = new Crun({ ...options.crun, state: paths.crunState });
  const sandbox = new Sandbox({
    images: options.images,
    crun,
    run,
    paths,
    unsealer: options.dataHub,
    volumes: options.volumes ?? { resource: undefined },
    deviceRules: options.deviceRules ?? true,
    during: options.during ?? ((_stage, _subject, work) => work()),
  });
  const ip = new IpProgram();
  // While the rest of the guest is made ready; the pod's network is the first thing that is asked for.
  ip.start();
  const handlers = implementation(options, sandbox, new GuestNetwork(ip));
  const guarded: Record<string, unknown> = {};
  for (const method of AgentService.methods) {
    const handler = handlers[method.localName as keyof Implementation] as Handler | undefined;
    guarded[method.localName] = guard(options, sandbox, method, handler ?? unsupported);
  }
  return {
    registerOn(server) {
      server.addService(AgentService, guarded as Implementation);
      server.addService(Health, {
        check: () => ({ status: HealthCheckResponse_ServingStatus.SERVING }),
        version: () => ({ grpcVersion: protocolVersion, agentVersion: options.version }),
      });
    },
    close: async () => {
      ip.close();
      await sandbox.destroy();
    },
  };
}

type Handler = (request: Message, context: RequestContext) => unknown;

function unsupported(_request: Message, { method }: RequestContext): never {
  throw new SealpodError('UNSUPPORTED', `${method} is not supported`);
}

function guard(options: PodServiceOptions, sandbox: Sandbox, method: DescMethod, handler: Handler): Handler {
  const type = method.input.name;
  const isRead = type === 'ReadStreamRequest';
  return async (request, context) => {
    const decision = await options.agentPolicy.decide(type, projectRequest(method.input, request));
    if (decision.allowed) return handler(request, context);
    const reason = denialReason(decision);
    options.onDenied?.({ request: type, reason });
    if (isRead) return discardOutput(sandbox, request as ReadStreamRequest, method.localName);
    throw new SealpodError('AGENT_POLICY_DENY', `${type} is blocked by policy: ${reason}`, { cause: decision.failure });
  };
}

function denialReason({ failure, prints }: PolicyDecision): string {
  const failed = failure === undefined ? [] : [`${failure.code}: ${failure.message}`];
  return [...failed, ...prints].join('\n').slice(0, maxPrintedCharacters);
}

async function discardOutput(
  sandbox: Sandbox,
  request: ReadStreamRequest,
  method: string,
): Promise<{ data: Uint8Array }> {
  const process = await runningProcess(sandbox, request);
  if (process !== undefined) (method === 'readStdout' ? process.stdout : process.stderr).discard();
  return { data: empty };
}

/** The process whose output is read, unless it is the pause container or not there: then there is none. */
async function runningProcess(sandbox: Sandbox, { containerId, execId }: ReadStreamRequest) {
  return sandbox.isSandbox(containerId) ? undefined : sandbox.process(containerId, execId);
}

function implementation(options: PodServiceOptions, sandbox: Sandbox, network: GuestNetwork): Implementation {
  const read = async (request: ReadStreamRequest, context: RequestContext, of: 'stdout' | 'stderr') => {
    const process = await runningProcess(sandbox, request);
    const buffer: OutputBuffer | undefined = process?.[of];
    return { data: (await buffer?.read(request.len, context.signal, streamOffset(context.metadata))) ?? empty };
  };
  const inputs = new WeakMap<ContainerProcess, InputStream>();
  const inputOf = (process: ContainerProcess): InputStream => {
    const input = inputs.get(process) ?? new InputStream((data) => process.write(data));
    inputs.set(process, input);
    return input;
  };
  return {
    createSandbox: async (request) => {
      await sandbox.create(request);
      return {};
    },
    destroySandbox: async () => {
      await sandbox.destroy();
      return {};
    },
    createContainer: async (request, { signal }) => {
      await sandbox.createContainer(request, signal);
      return {};
    },
    startContainer: async ({ containerId }) => {
      await sandbox.start(containerId);
      return {};
    },
    removeContainer: async ({ containerId, timeout }) => {
      await sandbox.remove(containerId, timeout);
      return {};
    },
    execProcess: async (request) => {
      await sandbox.exec(request);
      return {};
    },
    signalProcess: async ({ containerId, execId, signal }) => {
      await sandbox.signal(containerId, execId, signal);
      return {};
    },
    waitProcess: async ({ containerId, execId }) => ({ status: await sandbox.wait(containerId, execId) }),
    updateContainer: async ({ containerId, resources }) => {
      await sandbox.update(containerId, resources);
      return {};
    },
    pauseContainer: async ({ containerId }) => {
      await sandbox.pause(containerId);
      return {};
    },
    resumeContainer: async ({ containerId }) => {
      await sandbox.resume(containerId);
      return {};
    },
    statsContainer: ({ containerId }) => readStatistics(sandbox.cgroupOf(containerId)),
    getDiagnosticData: async ({ logType, containerId }) => {
      if (logType !== terminationLog) throw invalidArgument(`there is no log of type ${JSON.stringify(logType)}`);
      return { data: await sandbox.terminationMessage(containerId) };
    },
    writeStdin: async ({ containerId, execId, data }, { metadata }) => {
      const process = await sandbox.process(containerId, execId);
      // The runtime-rs shim says the end of the input by writing nothing.
      if (data.length === 0) process.closeStdin();
      else await inputOf(process).write(data, streamOffset(metadata));
      return { len: data.length };
    },
    closeStdin: async ({ containerId, execId }) => {
      (await sandbox.process(containerId, execId)).closeStdin();
      return {};
    },
    readStdout: (request, context) => read(request, context, 'stdout'),
    readStderr: (request, context) => read(request, context, 'stderr'),
    ttyWinResize: async ({ containerId, execId, row, column }) => {
      await sandbox.resize(containerId, execId, { rows: row, columns: column });
      return {};
    },
    updateInterface: async ({ interface: wanted }) => {
      if (wanted === undefined) throw invalidArgument('the request has no interface');
      return network.updateInterface(wanted);
    },
    updateRoutes: async ({ routes }) => ({ Routes: await network.updateRoutes(routes?.Routes ?? []) }),
    listInterfaces: async () => ({ Interfaces: await network.interfaces() }),
    listRoutes: async () => ({ Routes: await network.routes() }),
    addARPNeighbors: async ({ neighbors }) => {
      await network.addNeighbours(neighbors?.ARPNeighbors ?? []);
      return {};
    },
    getOOMEvent: async (_request, { signal }) => ({ containerId: await sandbox.outOfMemory.next(signal) }),
    getGuestDetails: (request) => guestDetails(request, options.version),
    getMetrics: async () => ({ metrics: await metrics() }),
    copyFile: async (request) => {
      await sandbox.copy(request);
      return {};
    },
    onlineCPUMem: async () => {
      await bringCpusOnline();
      return {};
    },
    reseedRandomDev: async ({ data }) => {
      await appendFile('/dev/urandom', data);
      return {};
    },
    setPolicy: async ({ policy }) => {
      await options.agentPolicy.replace(policy);
      return {};
    },
  };
}
