import { parentPort, workerData } from 'node:worker_threads';
import { SealpodError } from '@sealpod/protocol/errors';
import { isReasonCode } from '@sealpod/protocol/reason-codes';
import type { Call } from '../portable/testing/drive.ts';
import type { Job } from './fuzz.ts';
import { mutateBytes, mutateJson, Random } from './mutate.ts';
import type { Minted } from './target.ts';
import { targets } from './targets.ts';

const {
  target: name,
  seed,
  milliseconds,
  least = 0,
  replay,
  calls,
  minted,
} = workerData as Job & {
  readonly calls: readonly Call[];
  readonly minted: Minted;
};
const target = targets[name];
const seeds = [...(target?.seeds(calls) ?? []), ...minted.seeds].filter((value) => value !== undefined);
if (target === undefined || seeds.length === 0) throw new RangeError(`no such target, or no seed: ${name}`);

/** One input may take at most this long, and leave at most so much memory behind before it is collected. */
const inputMilliseconds = 2_000;
const inputBytes = 64 * 1024 * 1024;

const codes: Record<string, number> = {};
const end = performance.now() + milliseconds;
let inputs = 0;
const goesOn = (): boolean => performance.now() < end || inputs < least;
for (let index = 0; replay === undefined ? goesOn() : index === 0; index += 1) {
  const random = new Random(Math.imul(seed + 1, 0x9e3779b1) + Math.imul(index + 1, 0x85ebca6b));
  const valid = random.pick(seeds);
  const mutated = target.bytes
    ? mutateBytes(Buffer.from(String(valid), 'base64'), random).toString('base64')
    : mutateJson(valid, random);
  const input = replay?.input ?? mutated;
  parentPort?.postMessage({ started: index, input });
  const [began, before] = [performance.now(), process.memoryUsage()];
  let code: string;
  try {
    code = await target.run(input, calls, minted.under);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError)) throw new Error(`input ${index}: not a typed error`, { cause: thrown });
    code = thrown.code;
  }
  const after = process.memoryUsage();
  const grown = after.heapUsed + after.external - before.heapUsed - before.external;
  if (code !== 'OK' && (!isReasonCode(code) || code === 'INTERNAL')) throw new Error(`input ${index}: code ${code}`);
  if (performance.now() - began > inputMilliseconds) throw new Error(`input ${index}: too slow`);
  if (grown > inputBytes) throw new Error(`input ${index}: allocates ${grown} bytes`);
  codes[code] = (codes[code] ?? 0) + 1;
  inputs += 1;
}
parentPort?.postMessage({ inputs, codes });
