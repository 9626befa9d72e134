import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { create, type DescMessage, type DescService, type MessageInitShape } from '@bufbuild/protobuf';
import {
  status as grpcStatus,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import {
  GetPluginCapabilitiesResponseSchema,
  GetPluginInfoResponseSchema,
  Identity,
  Node,
  NodeGetCapabilitiesResponseSchema,
  NodeGetInfoResponseSchema,
  type NodePublishVolumeRequest,
  NodePublishVolumeResponseSchema,
  NodeUnpublishVolumeResponseSchema,
  ProbeResponseSchema,
  VolumeCapability_AccessMode_Mode,
} from '@sealpod/protocol/gen/csi/csi_pb';
import {
  PluginInfoSchema,
  Registration,
  RegistrationStatusResponseSchema,
} from '@sealpod/protocol/gen/csi/plugin_registration_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';
import { fixOf } from '@sealpod/protocol/reason-codes';
import type { Log } from '../../adaptor/log.ts';
import type { PublishedAs } from './backing.ts';
import type { DriverConfig } from './config.ts';
import type { Publisher } from './publish.ts';

/** Member of a volume's context with the resource of its key. */
export const keyAttribute = 'sealpod.io/encryption-key';

const version = '0.1.0';
const podPrefix = 'csi.storage.k8s.io/pod.';

/** What publishing asks of the cluster. */
export interface PodLookup {
  /** Handler of the pod's RuntimeClass; undefined where it has none. @throws where the pod is not there or is another one */
  handlerOf(pod: {
    readonly namespace: string;
    readonly name: string;
    readonly uid: string;
  }): Promise<string | undefined>;
}

const { SINGLE_NODE_WRITER, SINGLE_NODE_READER_ONLY, SINGLE_NODE_SINGLE_WRITER, SINGLE_NODE_MULTI_WRITER } =
  VolumeCapability_AccessMode_Mode;
const supportedModes: readonly number[] = [
  SINGLE_NODE_WRITER,
  SINGLE_NODE_READER_ONLY,
  SINGLE_NODE_SINGLE_WRITER,
  SINGLE_NODE_MULTI_WRITER,
];

/** Where the driver serves. */
export function driverSockets({ driver, kubeletDirectory }: DriverConfig) {
  return {
    plugin: join(kubeletDirectory, 'plugins', driver, 'csi.sock'),
    registration: join(kubeletDirectory, 'plugins_registry', `${driver}-reg.sock`),
  };
}

/**
 * Serves CSI's identity and node services for the kubelet, and registers them there. Returns what ends it.
 *
 * @throws SealpodError PREREQUISITE where a socket cannot be served
 */
export async function serveDriver(
  config: DriverConfig,
  publisher: Publisher,
  pods: PodLookup,
  log: Log,
): Promise<() => void> {
  const sockets = driverSockets(config);
  const unary = unaryWith(log);
  const identity = {
    getPluginInfo: unary(GetPluginInfoResponseSchema, async () => ({ name: config.driver, vendorVersion: version })),
    getPluginCapabilities: unary(GetPluginCapabilitiesResponseSchema, async () => ({ capabilities: [] })),
    probe: unary(ProbeResponseSchema, async () => ({ ready: true })),
  };
  const node = {
    nodeGetInfo: unary(NodeGetInfoResponseSchema, async () => ({ nodeId: config.node })),
    nodeGetCapabilities: unary(NodeGetCapabilitiesResponseSchema, async () => ({ capabilities: [] })),
    nodePublishVolume: unary(NodePublishVolumeResponseSchema, async (request: NodePublishVolumeRequest) => {
      await publisher.publish({
        volumeId: request.volumeId,
        target: request.targetPath,
        as: await kindOf(request, config, pods),
        readOnly: request.readonly,
        options:
          request.volumeCapability?.accessType.case === 'mount'
            ? request.volumeCapability.accessType.value.mountFlags
            : [],
        key: request.volumeContext[keyAttribute],
      });
      return {};
    }),
    nodeUnpublishVolume: unary(
      NodeUnpublishVolumeResponseSchema,
      async (request: { volumeId: string; targetPath: string }) => {
        await publisher.unpublish(request.volumeId, request.targetPath);
        return {};
      },
    ),
  };
  const registration = {
    getInfo: unary(PluginInfoSchema, async () => ({
      type: 'CSIPlugin',
      name: config.driver,
      endpoint: sockets.plugin,
      supportedVersions: ['1.0.0'],
    })),
    notifyRegistrationStatus: unary(
      RegistrationStatusResponseSchema,
      async (told: { pluginRegistered: boolean; error: string }) => {
        if (told.pluginRegistered) log.info({ driver: config.driver }, 'registered with the kubelet');
        else log.error({ reason: told.error }, 'the kubelet refuses the driver');
        return {};
      },
    ),
  };
  const plugin = await serve(sockets.plugin, [
    [Identity, identity],
    [Node, node],
  ]);
  // The kubelet looks for sockets in this folder: what it is told there has to be served already.
  const registrar = await serve(sockets.registration, [[Registration, registration]]);
  return () => {
    registrar.forceShutdown();
    plugin.forceShutdown();
    for (const socket of Object.values(sockets)) rmSync(socket, { force: true });
  };
}

async function kindOf(request: NodePublishVolumeRequest, config: DriverConfig, pods: PodLookup): Promise<PublishedAs> {
  const mode = request.volumeCapability?.accessMode?.mode ?? VolumeCapability_AccessMode_Mode.UNKNOWN;
  if (!supportedModes.includes(mode)) {
    throw new SealpodError('UNSUPPORTED', 'a volume of this driver is of one node', {
      expected: 'ReadWriteOnce or ReadWriteOncePod',
      actual: `access mode ${mode}`,
    });
  }
  if (request.volumeCapability?.accessType.case === 'block') return 'block';
  const of = (name: string): string => request.volumeContext[`${podPrefix}${name}`] ?? '';
  const handler = await pods.handlerOf({ namespace: of('namespace'), name: of('name'), uid: of('uid') });
  return handler !== undefined && config.runtimeHandlers.includes(handler) ? 'direct' : 'mount';
}

function unaryWith(log: Log) {
  return <Q, S extends DescMessage>(schema: S, run: (request: Q) => Promise<MessageInitShape<S>>) =>
    (call: ServerUnaryCall<Q, unknown>, callback: sendUnaryData<unknown>): void => {
      run(call.request).then(
        (answer) => callback(null, create(schema, answer)),
        (thrown: unknown) => {
          const error = asSealpodError(thrown);
          const answers = schema.name;
          log.error({ answers, code: error.code, ...error.detail, cause: String(error.cause ?? '') }, error.message);
          const details = `${error.code}: ${error.message}; to do: ${fixOf(error)}`;
          callback({ code: grpcCodeOf(error), details });
        },
      );
    };
}

/** Codes of the CSI specification, section "Error Scheme". */
function grpcCodeOf({ code }: SealpodError): number {
  switch (code) {
    case 'NOT_FOUND':
      return grpcStatus.NOT_FOUND;
    case 'REQUEST_FORMAT':
    case 'UNSUPPORTED':
      return grpcStatus.INVALID_ARGUMENT;
    case 'STORAGE_CONFLICT':
    case 'VOLUME_FORMAT':
      return grpcStatus.FAILED_PRECONDITION;
    default:
      return grpcStatus.INTERNAL;
  }
}

/** Serves on a unix socket that only its owner can reach. */
async function serve(
  socket: string,
  services: readonly (readonly [DescService, UntypedServiceImplementation])[],
): Promise<Server> {
  mkdirSync(dirname(socket), { recursive: true, mode: 0o750 });
  if (existsSync(socket)) rmSync(socket);
  const server = new Server();
  for (const [service, implementation] of services) server.addService(toGrpcServiceDefinition(service), implementation);
  const mask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix://${socket}`, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      );
    });
  } catch (cause) {
    throw new SealpodError('PREREQUISITE', `cannot serve ${socket}`, { cause });
  } finally {
    process.umask(mask);
  }
  return server;
}
