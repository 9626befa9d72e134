/**
 * Load on a REST-AS, ours or upstream's: the same appraisal again and again. Prints one line of JSON.
 *
 *   node bench/load/appraise-load.ts --url URL --body FILE --concurrency N --duration SECONDS --warmup SECONDS \
 *        [--server-pids PID,PID…]
 *
 * Each client is one connection that asks again as soon as it is answered. Nothing of the service's code is used.
 *
 * @module
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { processorSeconds } from '../processes.ts';
import { KeepAliveConnection } from './connection.ts';
import { summarize } from './summary.ts';

const { values } = parseArgs({
  options: {
    url: { type: 'string', default: 'http://127.0.0.1:8080' },
    body: { type: 'string', default: 'request.json' },
    concurrency: { type: 'string', default: '1' },
    duration: { type: 'string', default: '5' },
    warmup: { type: 'string', default: '2' },
    'server-pids': { type: 'string', default: '' },
  },
});
const url = new URL(values.url);
const body = readFileSync(values.body, 'utf8');
const pids = values['server-pids']
  .split(',')
  .filter((pid) => pid !== '')
  .map(Number);

/** One client until `end`. @throws Error where the service refuses or answers no token */
async function client(end: number, latencies: number[]): Promise<void> {
  const connection = await KeepAliveConnection.open(url);
  try {
    while (performance.now() < end) {
      const began = performance.now();
      const answer = await connection.ask('POST', '/attestation', {}, body);
      if (answer.status !== 200 || answer.body.toString('latin1').split('.').length !== 3)
        throw new Error(`status ${answer.status}: ${answer.body.toString('utf8', 0, 300)}`);
      latencies.push(performance.now() - began);
    }
  } finally {
    connection.close();
  }
}

async function load(seconds: number): Promise<{ readonly latencies: number[]; readonly seconds: number }> {
  const latencies: number[] = [];
  const began = performance.now();
  const end = began + seconds * 1000;
  await Promise.all(Array.from({ length: Number(values.concurrency) }, () => client(end, latencies)));
  return { latencies, seconds: (performance.now() - began) / 1000 };
}

const used = (): number => pids.reduce((sum, pid) => sum + processorSeconds(pid), 0);
await load(Number(values.warmup));
const before = used();
const { latencies, seconds } = await load(Number(values.duration));
const spent = used() - before;
console.log(JSON.stringify(summarize(latencies, seconds, pids.length === 0 ? Number.NaN : spent)));
