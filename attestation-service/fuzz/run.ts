/**
 * Fuzzes parsers and verifiers: only verdicts and typed errors, in limited time and memory.
 *
 *   node attestation-service/fuzz/run.ts [TARGET] [--seconds 60] [--seed N] [--replay FILE]
 *
 * @module
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Failure, fuzz } from './fuzz.ts';
import { targets } from './targets.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' }, replay: { type: 'string' } },
});
const unknown = positionals.find((name) => !Object.hasOwn(targets, name));
if (unknown !== undefined) {
  process.stderr.write(`no target ${unknown}; there are: ${Object.keys(targets).join(', ')}\n`);
  process.exitCode = 2;
} else {
  for (const target of positionals.length > 0 ? positionals : Object.keys(targets)) {
    const seed = Number(values.seed ?? randomInt(2 ** 31));
    const replay = values.replay === undefined ? {} : { replay: readFailure(values.replay) };
    process.stdout.write(`${target}: seed ${seed}\n`);
    const { inputs, codes } = await fuzz({ target, seed, milliseconds: Number(values.seconds) * 1000, ...replay });
    process.stdout.write(`${target}: ${inputs} inputs, ${JSON.stringify(codes)}\n`);
  }
}

function readFailure(file: string): Failure {
  return JSON.parse(readFileSync(file, 'utf8')) as Failure;
}
