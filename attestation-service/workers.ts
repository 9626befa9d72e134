import cluster, { type Worker } from 'node:cluster';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { Ports } from './start.ts';

/** What a worker tells the main process. */
type WorkerMessage =
  | { readonly ready: Ports }
  | { readonly failed: { readonly code: string; readonly message: string } };

/** Running worker processes. */
export interface RunningWorkers {
  readonly ports: Ports;
  /** Lets every worker end what it is doing. */
  close(): Promise<void>;
}

/**
 * Most of what a request makes is garbage when it is answered. A young generation of the default size (three times 16 MiB a
 * thread) is paid in memory by every worker and makes none of them faster; nor does the middle one of V8's compilers, which
 * keeps 15 MiB: most of the time is spent in OpenSSL.
 */
const workerOptions = ['--max-semi-space-size=2', '--no-maglev'];

/** A worker that ends so soon after another is not replaced at once. */
const shortestLifeMs = 1000;

/**
 * Starts `count` worker processes that run this program again, and shares their listening sockets among them: connections go
 * to them in turn. All have one storage; what a worker decides, it decides alone. One that dies is replaced.
 *
 * @throws SealpodError where a worker cannot start
 */
export async function startWorkers(count: number): Promise<RunningWorkers> {
  let closing = false;
  cluster.setupPrimary({ execArgv: [...process.execArgv, ...workerOptions] });
  const fork = (): Worker => {
    const began = performance.now();
    const worker = cluster.fork();
    worker.once('exit', () => {
      if (!closing) setTimeout(() => closing || fork(), Math.max(0, shortestLifeMs - (performance.now() - began)));
    });
    return worker;
  };
  const close = async (): Promise<void> => {
    closing = true;
    const workers = Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined);
    await Promise.all(
      workers.map((worker) => {
        const gone = new Promise<void>((resolve) => void worker.once('exit', () => resolve()));
        worker.kill('SIGTERM');
        return gone;
      }),
    );
  };
  try {
    const [ports] = await Promise.all(Array.from({ length: count }, () => readiness(fork())));
    if (ports === undefined) throw new SealpodError('INTERNAL', 'there is no worker');
    return { ports, close };
  } catch (thrown) {
    await close();
    throw asSealpodError(thrown);
  }
}

function readiness(worker: Worker): Promise<Ports> {
  return new Promise((resolve, reject) => {
    worker.once('message', (message: WorkerMessage) => {
      if ('ready' in message) resolve(message.ready);
      else
        reject(
          new SealpodError('INTERNAL', `a worker cannot start: ${message.failed.code}: ${message.failed.message}`),
        );
    });
    worker.once('exit', (code) =>
      reject(new SealpodError('INTERNAL', `a worker ended with ${code} before it was ready`)),
    );
  });
}

/** In a worker: tells the main process. Does nothing elsewhere. */
export function tellMain(message: WorkerMessage): void {
  if (cluster.isWorker) process.send?.(message);
}

/** Whether this process is a worker of another. */
export function isWorker(): boolean {
  return cluster.isWorker;
}
