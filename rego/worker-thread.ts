import { Worker } from 'node:worker_threads';
import { SealpodError } from '@sealpod/protocol/errors';
import type { WorkerSettings, WorkReply, WorkRequest } from './messages.ts';

const startLimitMs = 60_000;
const heapLimitMegabytes = 256;
/** Texts come and go; what stays is in the module's own memory. */
const youngMegabytes = 8;

/** A worker with one request at most under way, and terminated when that takes too long. */
export class WorkerThread {
  readonly #worker: Worker;
  readonly #ready: Promise<void>;
  /** Numbers of the policies that this worker has the text of, oldest use first. */
  readonly known = new Set<number>();
  #settle: ((outcome: WorkReply | SealpodError) => void) | undefined;
  #ended: SealpodError | undefined;

  constructor(entry: URL, settings: WorkerSettings) {
    this.#worker = new Worker(entry, {
      workerData: settings,
      // A policy needs nothing of the process around it.
      env: {},
      argv: [],
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: heapLimitMegabytes, maxYoungGenerationSizeMb: youngMegabytes },
    });
    this.#ready = new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#end('the policy worker did not start in time'), startLimitMs);
      timer.unref();
      this.#settle = (outcome) => {
        clearTimeout(timer);
        if (outcome instanceof SealpodError) reject(outcome);
        else resolve();
      };
    });
    // The first request awaits it; without one, a failed start shows at the next.
    this.#ready.catch(() => undefined);
    this.#worker.on('message', (reply: WorkReply) => this.#deliver(reply));
    this.#worker.on('error', (cause) => this.#end(`the policy worker failed: ${cause.message}`, cause));
    this.#worker.on('exit', (code) => this.#end(`the policy worker ended with ${code}`));
    this.#worker.unref();
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Runs one request. Rejects with POLICY_TIMEOUT, the worker terminated, after `timeoutMs`; INTERNAL where it died. */
  async run(request: WorkRequest, timeoutMs: number): Promise<WorkReply> {
    this.#worker.ref();
    try {
      await this.#ready;
      return await new Promise((resolve, reject) => {
        if (this.#ended !== undefined) {
          reject(this.#ended);
          return;
        }
        const timer = setTimeout(() => {
          const error = new SealpodError('POLICY_TIMEOUT', `the policy did not finish within ${timeoutMs} ms`);
          this.#stop(error);
        }, timeoutMs);
        this.#settle = (outcome) => {
          clearTimeout(timer);
          if (outcome instanceof SealpodError) reject(outcome);
          else resolve(outcome);
        };
        this.#worker.postMessage(request);
      });
    } finally {
      this.#worker.unref();
    }
  }

  /** Ends the worker; what is under way rejects with `error`. Returns when the thread is gone. */
  async terminate(error: SealpodError): Promise<void> {
    this.#ended ??= error;
    this.#deliver(error);
    await this.#worker.terminate();
  }

  #end(message: string, cause?: unknown): void {
    this.#stop(new SealpodError('INTERNAL', message, { cause }));
  }

  #stop(error: SealpodError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#deliver(error);
    // It resolves also where the thread has ended already.
    this.#worker.terminate().catch(() => undefined);
  }

  #deliver(outcome: WorkReply | SealpodError): void {
    const settle = this.#settle;
    this.#settle = undefined;
    settle?.(outcome);
  }
}
