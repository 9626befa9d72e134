/**
 * `npm run bench -- [names…] [--runs N] [--pods N,N…] [-o json] [--peer-key-broker URL] [--load-generator FILE]`: measures this
 * repository's parts beside the programs they are compared with, both sides in one run on one machine.
 *
 * @module
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { agentRelay } from './cases/agent-relay.ts';
import { appraiseCase } from './cases/appraise.ts';
import { imagePull } from './cases/image-pull.ts';
import { keyBroker } from './cases/key-broker.ts';
import { machineStart } from './cases/machine-start.ts';
import { memory } from './cases/memory.ts';
import { podStart } from './cases/pod-start.ts';
import { pods } from './cases/pods.ts';
import { policyEngine } from './cases/policy-engine.ts';
import { removeTracesOnSignal } from './interruption.ts';
import { describeMachine } from './machine.ts';
import type { BenchCase, BenchContext } from './measure.ts';
import { type CaseResult, renderText } from './report.ts';

const cases: readonly BenchCase[] = [
  machineStart,
  podStart,
  imagePull,
  keyBroker,
  policyEngine,
  appraiseCase,
  agentRelay,
  memory,
  pods,
];
const usage = `usage: npm run bench -- [${cases.map(({ name }) => name).join('|')}…] [--runs N] [--pods N,N…] [-o text|json] [--peer-key-broker URL] [--load-generator FILE]`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    output: { type: 'string', short: 'o', default: 'text' },
    runs: { type: 'string', default: '3' },
    pods: { type: 'string', default: '1,4,10' },
    'peer-key-broker': { type: 'string' },
    'load-generator': { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

const unknown = positionals.filter((name) => !cases.some((known) => known.name === name));
const runs = Number(values.runs);
const podCounts = values.pods.split(',').map(Number);
const isCount = (value: number): boolean => Number.isInteger(value) && value >= 1;
if (values.help) {
  console.log(`${usage}\n\n${cases.map(({ name, definition }) => `${name}: ${definition}`).join('\n')}`);
} else if (unknown.length > 0 || !/^(text|json)$/.test(values.output) || !isCount(runs) || !podCounts.every(isCount)) {
  console.error(unknown.length > 0 ? `bench: unknown case ${unknown.join(', ')}\n${usage}` : usage);
  process.exitCode = 2;
} else {
  const scratch = await mkdtemp(join(tmpdir(), 'sealpod-bench-'));
  // What cases and their programs put aside lies in it, too.
  process.env['TMPDIR'] = scratch;
  removeTracesOnSignal(scratch);
  try {
    const machine = await describeMachine();
    const context: BenchContext = {
      runs,
      pods: podCounts,
      scratch,
      say: (text) => console.error(`bench: ${text}`),
      peerKeyBroker: values['peer-key-broker'],
      loadGenerator: values['load-generator'],
    };
    const chosen = cases.filter(({ name, onRequest }) =>
      positionals.length === 0 ? onRequest !== true : positionals.includes(name),
    );
    const results: CaseResult[] = [];
    for (const one of chosen) results.push(await runCase(one, context));
    const report = { machine, results };
    process.stdout.write(values.output === 'json' ? `${JSON.stringify(report, null, 2)}\n` : renderText(report));
    if (results.some(({ failure }) => failure !== undefined)) process.exitCode = 1;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** One case that fails does not end the others; it makes the exit code 1. */
async function runCase({ name, definition, obstacle, run }: BenchCase, context: BenchContext): Promise<CaseResult> {
  const began = performance.now();
  const seconds = (): number => (performance.now() - began) / 1000;
  const skipped = obstacle();
  if (skipped !== undefined) return { name, definition, seconds: 0, skipped };
  context.say(name);
  try {
    const measured = await run(context);
    return { name, definition, seconds: seconds(), measured };
  } catch (error) {
    const failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { name, definition, seconds: seconds(), failure };
  }
}
