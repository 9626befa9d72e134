import { Worker } from 'node:worker_threads';
import { allCalls } from '../portable/testing/calls.ts';

export interface Job {
  readonly target: string;
  readonly seed: number;
  readonly milliseconds: number;
  /** Only this input, to replay a failure. */
  readonly only?: number;
}

export interface Result {
  readonly inputs: number;
  /** How often each code was the answer. */
  readonly codes: Readonly<Record<string, number>>;
}

/** An input that does not come to its end is stopped after this time. */
const stuckMilliseconds = 10_000;

/**
 * Fuzzes one target in a thread of its own, with limited memory, and stops it where an input hangs.
 *
 * @throws Error naming target, seed and number of the input that failed
 */
export async function fuzz(job: Job): Promise<Result> {
  const calls = (await allCalls()).map(({ call }) => call);
  const worker = new Worker(new URL('worker.ts', import.meta.url), {
    workerData: { ...job, calls },
    resourceLimits: { maxOldGenerationSizeMb: 384 },
  });
  let index = 0;
  let moved = performance.now();
  let watch: NodeJS.Timeout | undefined;
  try {
    return await new Promise<Result>((resolve, reject) => {
      watch = setInterval(() => {
        if (performance.now() - moved > stuckMilliseconds) reject(new Error(`input ${index}: hangs`));
      }, 500);
      worker.on('message', (message: Result | { readonly started: number }) => {
        moved = performance.now();
        if ('started' in message) index = message.started;
        else resolve(message);
      });
      worker.on('error', reject);
      worker.on('exit', (code) => reject(new Error(`input ${index}: the thread ended with ${code}`)));
    });
  } catch (cause) {
    throw new Error(
      `${job.target}: ${cause instanceof Error ? cause.message : String(cause)}; replay with --seed ${job.seed} --only ${index}`,
      { cause },
    );
  } finally {
    clearInterval(watch);
    await worker.terminate();
  }
}
