import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { JsonValue } from '@sealpod/protocol/json';
import { allCalls } from '../portable/testing/calls.ts';
import type { Call } from '../portable/testing/drive.ts';
import type { Minted } from './target.ts';
import { targets } from './targets.ts';

export interface Job {
  readonly target: string;
  readonly seed: number;
  readonly milliseconds: number;
  /** Inputs at least, however long they take; default 0. */
  readonly least?: number;
  /** Only this input, with the calls it was made from: what the file of a failure holds. */
  readonly replay?: Failure;
}

/** An input that failed. Keys of minted evidence are new in each run, so that the seed alone does not make it again. */
export interface Failure {
  readonly input: JsonValue;
  readonly calls: readonly Call[];
  readonly minted: Minted;
}

export interface Result {
  readonly inputs: number;
  /** How often each code was the answer. */
  readonly codes: Readonly<Record<string, number>>;
}

let made: Promise<readonly Call[]> | undefined;

/** The calls that the tests of the portable entry point make; made once, for their keys take time. */
export function knownCalls(): Promise<readonly Call[]> {
  made ??= allCalls().then((calls) => calls.map(({ call }) => call));
  return made;
}

/** An input that does not come to its end is stopped after this time; a thread that does not begin, later. */
const stuckMilliseconds = 10_000;
const beginMilliseconds = 60_000;

/**
 * Fuzzes one target in a thread of its own, with limited memory, and stops it where an input hangs.
 *
 * @throws Error naming target, seed and the file that holds the input that failed
 */
export async function fuzz(job: Job): Promise<Result> {
  const target = targets[job.target];
  if (target === undefined) throw new RangeError(`no such target: ${job.target}`);
  // What mints for itself needs no calls.
  const calls = job.replay?.calls ?? (target.mint === undefined ? await knownCalls() : []);
  const minted = job.replay?.minted ?? (await target.mint?.()) ?? { seeds: [], under: {} };
  const worker = new Worker(new URL('worker.ts', import.meta.url), {
    workerData: { ...job, calls, minted },
    resourceLimits: { maxOldGenerationSizeMb: 384 },
  });
  let index = -1;
  let input: JsonValue = null;
  let moved = performance.now();
  let watch: NodeJS.Timeout | undefined;
  try {
    return await new Promise<Result>((resolve, reject) => {
      watch = setInterval(() => {
        const limit = index < 0 ? beginMilliseconds : stuckMilliseconds;
        if (performance.now() - moved > limit) reject(new Error(`input ${index}: hangs`));
      }, 500);
      worker.on('message', (message: Result | { readonly started: number; readonly input: JsonValue }) => {
        moved = performance.now();
        if ('started' in message) ({ started: index, input } = message);
        else resolve(message);
      });
      worker.on('error', reject);
      worker.on('exit', (code) => reject(new Error(`input ${index}: the thread ended with ${code}`)));
    });
  } catch (cause) {
    const file = join(tmpdir(), `fuzz-${job.target}-${job.seed}-${index}.json`);
    writeFileSync(file, JSON.stringify({ input, calls, minted } satisfies Failure));
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`${job.target}, seed ${job.seed}: ${reason}; replay with ${job.target} --replay ${file}`, {
      cause,
    });
  } finally {
    clearInterval(watch);
    await worker.terminate();
  }
}
