import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startupSnapshot } from 'node:v8';
import { create, toBinary } from '@bufbuild/protobuf';
import { Task as TaskV2 } from '@sealpod/protocol/gen/containerd/task_v2_pb';
import { Task as TaskV3 } from '@sealpod/protocol/gen/containerd/task_v3_pb';
import { RuntimeInfoSchema } from '@sealpod/protocol/gen/containerd/types_pb';
import { TtrpcServer } from '@sealpod/protocol/ttrpc';
import { cleanUpDeadShim, sweepForgottenPods } from './clean-up.ts';
import { EventPublisher } from './events/publisher.ts';
import { openLog } from './log.ts';
import { Pod } from './pod/pod.ts';
import { removeTraces, writeState } from './state-file.ts';
import { TaskService } from './task/service.ts';
import { release } from './version.ts';

/** A daemon that nobody asks for anything ends: containerd died between starting it and using it. */
const unusedMs = 120_000;
const flushMs = 3000;

interface Options {
  readonly id: string;
  readonly namespace: string;
  readonly address: string;
  readonly socket: string;
  readonly debug: boolean;
}

/** Serves one pod until containerd shuts it down. Called by the bootstrap script in the pod's bundle. */
async function serve(options: Options): Promise<void> {
  const bundle = process.cwd();
  const fields = { pod: options.id, namespace: options.namespace };
  const log = openLog(join(bundle, 'log'), fields, options.debug);
  // The bundle is deleted while we may still run.
  process.chdir('/');
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGPIPE', 'SIGHUP'] as const) process.on(signal, () => undefined);
  const publisher = new EventPublisher(process.env.TTRPC_ADDRESS ?? '', options.namespace, log);
  const server = new TtrpcServer();
  const pod = new Pod({ socketPath: options.socket, publisher, log });

  let ending = false;
  const shutdown = (): void => {
    if (ending) return;
    ending = true;
    // Not before the answer to the call that asked for it is on its way.
    setImmediate(async () => {
      if (!pod.idle) await pod.stop('the shim is shut down');
      // Where the machine could not be stopped the state stays: the next shim of this node tries again.
      if (!pod.machineLeft) removeTraces(options.socket);
      await publisher.flush(flushMs);
      publisher.close();
      log.close();
      await Promise.race([server.close(), new Promise((resolve) => setTimeout(resolve, 500))]);
      process.exit(0);
    });
  };
  const unused = setTimeout(() => {
    if (pod.idle) shutdown();
  }, unusedMs);
  unused.unref();

  // Before the socket: whatever kills this process, the delete verb finds what is to be removed.
  const state = { version: 1, id: options.id, pid: process.pid, bundle, hypervisorSocket: '' } as const;
  writeState(options.socket, state);
  const { implementation } = new TaskService(pod, publisher, shutdown);
  server.addService(TaskV2, implementation);
  server.addService(TaskV3, implementation);
  await server.listen(options.socket, { mode: 0o600 });
  writeFileSync(join(bundle, 'shim.pid'), String(process.pid));
  // The bootstrap script waits for the end of this stream; descriptor 1 must not be given to anything else.
  writeSync(1, `unix://${options.socket}`);
  closeSync(1);
  openSync('/dev/null', 'r+');
  await sweepForgottenPods(options.socket, log);
}

/** `containerd-shim -info`: what the runtime is (protobuf RuntimeInfo on standard output). */
function information(): void {
  const info = create(RuntimeInfoSchema, { name: 'io.containerd.sealpod.v2', version: { version: release } });
  writeSync(1, toBinary(RuntimeInfoSchema, info));
}

/** One verb. @param words of the command line, without the program */
async function main(words: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: words.map((argument) => argument.replace(/^-(?=[a-z]{2})/, '--')),
    allowPositionals: true,
    options: {
      id: { type: 'string', default: '' },
      namespace: { type: 'string', default: '' },
      address: { type: 'string', default: '' },
      socket: { type: 'string', default: '' },
      bundle: { type: 'string', default: '' },
      debug: { type: 'boolean', default: false },
    },
  });

  switch (positionals[0]) {
    case 'serve':
      await serve(values);
      break;
    case 'delete':
      await cleanUpDeadShim(values.socket);
      break;
    case 'info':
      information();
      break;
    case 'version':
      writeSync(1, `containerd-shim-sealpod-v2 ${release}\n`);
      break;
    default:
      writeSync(2, 'this program is started by containerd-shim-sealpod-v2\n');
      process.exitCode = 2;
  }
}

// Loading the modules takes longer than Node's own start: the runtime's folder holds a snapshot of the heap after it.
if (startupSnapshot.isBuildingSnapshot()) startupSnapshot.setDeserializeMainFunction(() => main(process.argv.slice(1)));
else void main(process.argv.slice(2));
