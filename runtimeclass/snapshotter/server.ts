import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { SealpodError } from '@sealpod/protocol/errors';
import { Snapshots } from '@sealpod/protocol/gen/containerd/snapshots_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';
import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';
import { SnapshotterMetrics } from './metrics.ts';
import { SnapshotService } from './service.ts';

/** Settings of the snapshotter, as its configuration file has them (JSON). */
export interface SnapshotterConfiguration {
  /** Unix socket for containerd's `proxy_plugins` entry. */
  readonly socket: string;
  /** Directory for its record; survives restarts. */
  readonly root: string;
  /** Unix socket of the metrics (HTTP); by default `snapshotter-metrics.sock` beside the other. */
  readonly metricsSocket?: string;
}

/** Whether somebody serves the socket: a second snapshotter must not take it from the first. */
function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    const settle = (answer: boolean) => () => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', settle(true)).once('error', settle(false));
  });
}

/** Status codes of ttrpc are those of gRPC. */
const grpcError = (thrown: unknown): { code: number; details: string } => ({
  code: thrown instanceof TtrpcError ? thrown.status : Status.internal,
  details: thrown instanceof Error ? thrown.message : String(thrown),
});

const resultOf = (thrown: unknown): 'exists' | 'error' =>
  thrown instanceof TtrpcError && thrown.status === Status.alreadyExists ? 'exists' : 'error';

function unary<Q, R>(metrics: SnapshotterMetrics, method: string, run: (request: Q) => R) {
  return (call: ServerUnaryCall<Q, R>, callback: sendUnaryData<R>): void => {
    try {
      callback(null, run(call.request));
      metrics.answered(method, 'ok');
    } catch (thrown) {
      metrics.answered(method, resultOf(thrown));
      callback(grpcError(thrown));
    }
  };
}

/**
 * Serves the snapshot service on a unix socket until the returned function is called.
 *
 * @throws SealpodError PREREQUISITE when another process serves the socket.
 */
export async function serveSnapshotter(configuration: SnapshotterConfiguration): Promise<() => Promise<void>> {
  const { socket, root } = configuration;
  if (existsSync(socket)) {
    if (await answers(socket)) {
      throw new SealpodError('PREREQUISITE', `another snapshotter serves ${socket}`, {
        fix: 'stop it, or set another socket in the configuration',
      });
    }
    rmSync(socket);
  }
  mkdirSync(dirname(socket), { recursive: true });
  const service = new SnapshotService(root);
  const metrics = new SnapshotterMetrics(() => service.count);
  const server = new Server();
  server.addService(toGrpcServiceDefinition(Snapshots), {
    prepare: unary(metrics, 'prepare', service.prepare.bind(service)),
    view: unary(metrics, 'view', service.view.bind(service)),
    mounts: unary(metrics, 'mounts', service.mounts.bind(service)),
    commit: unary(metrics, 'commit', service.commit.bind(service)),
    remove: unary(metrics, 'remove', service.remove.bind(service)),
    stat: unary(metrics, 'stat', service.stat.bind(service)),
    update: unary(metrics, 'update', service.update.bind(service)),
    usage: unary(metrics, 'usage', service.usage.bind(service)),
    cleanup: unary(metrics, 'cleanup', service.cleanup.bind(service)),
    list: (call: ServerWritableStream<Parameters<SnapshotService['list']>[0], unknown>): void => {
      try {
        for (const response of service.list(call.request)) call.write(response);
        call.end();
        metrics.answered('list', 'ok');
      } catch (thrown) {
        metrics.answered('list', resultOf(thrown));
        call.emit('error', grpcError(thrown));
      }
    },
  });
  // Whoever can reach the socket can make containerd believe in layers: only its owner may.
  const mask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix://${socket}`, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      );
    });
  } catch (cause) {
    service.close();
    throw new SealpodError('PREREQUISITE', `cannot serve ${socket}`, { cause });
  } finally {
    process.umask(mask);
  }
  const metricsSocket = configuration.metricsSocket ?? join(dirname(socket), 'snapshotter-metrics.sock');
  const stopMetrics = await metrics.serve(metricsSocket);
  return async () => {
    stopMetrics();
    server.forceShutdown();
    service.close();
    rmSync(socket, { force: true });
  };
}
