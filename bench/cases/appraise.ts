import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type AttestationService, createAttestationService } from '@sealpod/attestation-service';
import type { JsonObject } from '@sealpod/protocol/json';
import { processMemory } from '@sealpod/runtimeclass/bench';
import { openStorage } from '@sealpod/storage';
import {
  type Appraiser,
  snpEvidence,
  snpRequest,
  startAppraiser,
  tdxQuote,
  tpmMachine,
  tpmRequest,
} from '../appraiser.ts';
import { type BenchCase, type BenchContext, type Figure, figure } from '../measure.ts';

const execute = promisify(execFile);
const generator = fileURLToPath(new URL('../load/appraise-load.ts', import.meta.url));
const seconds = { duration: 4, warmup: 2 };
const clientCounts = [1, 4, 16];
const workers = 2;
/** The published report is of version 2, which a switch accepts. */
const snpConfiguration = { snp: { sources: [], allowVersion2: true } };
/** What is registered beside what the policy asks for. */
const stocks = [
  { referenceValues: 10, policies: 1 },
  { referenceValues: 1_000, policies: 1 },
  { referenceValues: 100_000, policies: 1 },
  { referenceValues: 10, policies: 100 },
];
const inProcessAppraisals = 1000;

interface Load {
  readonly perSec: number;
  readonly p50ms: number;
  readonly p99ms: number;
  readonly serverMsPerOp: number;
}

export const appraiseCase: BenchCase = {
  name: 'appraise',
  definition: `appraisals over REST by 1, 4 and 16 clients on one machine with the service of ${workers} worker processes (plain HTTP, published SNP evidence under AMD's root, a published TDX quote with collateral under Intel's, evidence of a TPM), and in this process beside growing stocks of reference values and policies`,
  obstacle: () => (snpEvidence() === undefined ? 'the published evidence is not on this machine' : undefined),
  run: async (context) => {
    const evidence = snpEvidence() ?? {};
    const machine = await tpmMachine(join(context.scratch, 'appraise'));
    const samples = new Samples();
    for (let run = 0; run < context.runs; run++) {
      const configuration = { ...snpConfiguration, ...tdxQuote.configuration, ...machine.configuration };
      const appraiser = await startAppraiser(join(context.scratch, `appraise-${run}`), workers, configuration);
      try {
        samples.add('start until ready', 'ms', appraiser.startMs);
        samples.addMemory('idle', appraiser);
        await measureOverRest(context, samples, 'SNP', appraiser, snpRequest(evidence));
        samples.addMemory('after SNP by 16 clients', appraiser);
        await measureOverRest(context, samples, 'TDX', appraiser, tdxQuote.request());
        samples.addMemory('after TDX by 16 clients', appraiser);
        await measureOverRest(context, samples, 'TPM', appraiser, await tpmRequest(machine.guest, appraiser.url));
        samples.addMemory('after TPM by 16 clients', appraiser);
      } finally {
        await appraiser.stop();
      }
      for (const stock of stocks) {
        context.say(`appraise: in process, ${stockName(stock)}`);
        samples.addEach(stockName(stock), await measureInProcess(context, evidence as JsonObject, stock));
      }
    }
    return {
      figures: samples.figures(),
      ratios: [],
      notes: [
        'each appraisal verifies the whole of its evidence; certificates that were verified before and answers of policies to the same claims are remembered',
        'resident memory counts pages that processes share once for each; proportional memory counts them once',
      ],
    };
  },
};

async function measureOverRest(
  context: BenchContext,
  samples: Samples,
  what: string,
  { url, pids }: Appraiser,
  body: string,
): Promise<void> {
  const file = join(context.scratch, 'request.json');
  writeFileSync(file, body);
  for (const clients of clientCounts) {
    context.say(`appraise: ${what}, ${clients} clients`);
    const { stdout } = await execute(process.execPath, [
      generator,
      ...['--url', url, '--body', file, '--concurrency', `${clients}`, '--server-pids', pids.join(',')],
      ...['--duration', `${seconds.duration}`, '--warmup', `${seconds.warmup}`],
    ]);
    const load = JSON.parse(stdout) as Load;
    const name = `${what} over REST, ${clients} client${clients === 1 ? '' : 's'}`;
    samples.add(name, '1/s', load.perSec);
    samples.add(`${name}, median latency`, 'ms', load.p50ms);
    samples.add(`${name}, 99th percentile`, 'ms', load.p99ms);
    samples.add(`${name}, processor time each`, 'ms', load.serverMsPerOp);
  }
}

type Stock = (typeof stocks)[number];

function stockName({ referenceValues, policies }: Stock): string {
  return `SNP in process, ${referenceValues} reference values, ${policies} polic${policies === 1 ? 'y' : 'ies'}`;
}

async function measureInProcess(context: BenchContext, evidence: JsonObject, stock: Stock): Promise<number> {
  const folder = join(context.scratch, `stock-${stock.referenceValues}-${stock.policies}-${performance.now()}`);
  mkdirSync(folder, { mode: 0o700 });
  const storage = await openStorage({ path: join(folder, 'db.sqlite') });
  const service = await createAttestationService({ snp: { sources: [], allowVersion2: true } }, { storage });
  try {
    await fill(service, stock);
    const evidences = [{ tee: 'snp', evidence }];
    const appraise = async (count: number): Promise<void> => {
      for (let at = 0; at < count; at++) await service.evaluate({ evidences, policyIds: [], correlationId: 'bench' });
    };
    await appraise(inProcessAppraisals / 4);
    const before = process.cpuUsage();
    await appraise(inProcessAppraisals);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000 / inProcessAppraisals;
  } finally {
    await service.close();
    await storage.close();
  }
}

async function fill(service: AttestationService, { referenceValues, policies }: Stock): Promise<void> {
  const batch = 10_000;
  for (let from = 0; from < referenceValues; from += batch) {
    const count = Math.min(batch, referenceValues - from);
    const values = Object.fromEntries(
      Array.from({ length: count }, (_, at) => [`bench_${from + at}`, ['00'.repeat(16)]]),
    );
    const payload = Buffer.from(JSON.stringify(values)).toString('base64');
    const message = JSON.stringify({ version: '0.1.0', type: 'sample', payload });
    await service.registerReferenceValues(message, { subject: 'bench', key: 'bench' });
  }
  for (let at = 1; at < policies; at++)
    await service.setPolicy(`bench${at}_cpu`, `package policy\nimport rego.v1\ntrust_claims := {"hardware": ${at}}\n`);
}

/** Samples by the name of their figure, in order of first appearance. */
class Samples {
  readonly #samples = new Map<string, { readonly unit: Figure['unit']; readonly values: number[] }>();

  add(name: string, unit: Figure['unit'], value: number): void {
    const known = this.#samples.get(name) ?? { unit, values: [] };
    known.values.push(value);
    this.#samples.set(name, known);
  }

  addEach(name: string, milliseconds: number): void {
    this.add(`${name}, processor time each`, 'ms', milliseconds);
  }

  addMemory(when: string, { pids }: Appraiser): void {
    const memories = pids.map(processMemory);
    const sum = (of: (memory: ReturnType<typeof processMemory>) => number): number =>
      memories.reduce((total, memory) => total + of(memory), 0);
    this.add(
      `memory of ${pids.length} processes ${when}, resident`,
      'MiB',
      sum(({ residentMiB }) => residentMiB),
    );
    this.add(
      `memory of ${pids.length} processes ${when}, proportional`,
      'MiB',
      sum(({ proportionalMiB }) => proportionalMiB),
    );
  }

  figures(): Figure[] {
    return [...this.#samples].map(([name, { unit, values }]) => figure(name, unit, values));
  }
}
