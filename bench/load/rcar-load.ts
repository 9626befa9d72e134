/**
 * Load on a key broker that speaks RCAR 0.4.0, ours or upstream's. Prints one line of JSON a run.
 *
 *   node bench/load/rcar-load.ts --mode release|bearer --url URL --path default/bench/key --concurrency N \
 *        --duration SECONDS --warmup SECONDS --runs N --server-pid PID
 *
 * `release` is challenge, attestation with sample evidence and the resource, each time a new session; `bearer` is the
 * resource with a token got before. Each client is one connection that asks again as soon as it is answered. Nothing
 * of the key broker's code is used, and every fiftieth secret is decrypted.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { canonicalJson } from '@sealpod/protocol/json';
import { decryptResponse, generateTeeKey, parseResponse } from '@sealpod/protocol/rcar';
import { processorSeconds } from '../processes.ts';
import { type Answer, KeepAliveConnection } from './connection.ts';
import { summarize } from './summary.ts';

const { values } = parseArgs({
  options: {
    mode: { type: 'string', default: 'release' },
    url: { type: 'string', default: 'http://127.0.0.1:8080' },
    path: { type: 'string', default: 'default/bench/key' },
    concurrency: { type: 'string', default: '1' },
    duration: { type: 'string', default: '5' },
    warmup: { type: 'string', default: '2' },
    runs: { type: 'string', default: '1' },
    'server-pid': { type: 'string' },
  },
});
const url = new URL(values.url);
const target = `/kbs/v0/resource/${values.path}`;
const decryptEvery = 50;
const { privateKey, teePubKey } = await generateTeeKey();
const request = '{"version":"0.4.0","tee":"sample","extra-params":{"supported-hash-algorithms":["sha384"]}}';

let answered = 0;

/** @throws Error where the broker refuses, or the secret cannot be decrypted */
function check(what: string, { status, body }: Answer): void {
  if (status !== 200) throw new Error(`${what}: status ${status}: ${body.toString('utf8', 0, 300)}`);
  if (what === 'resource' && answered++ % decryptEvery === 0) decryptResponse(privateKey, parseResponse(body));
}

/** Attests once; returns the session cookie and the token. */
async function attest(connection: KeepAliveConnection): Promise<{ readonly cookie: string; readonly token: string }> {
  const challenge = await connection.ask('POST', '/kbs/v0/auth', {}, request);
  check('auth', challenge);
  const { nonce }: { readonly nonce: string } = JSON.parse(challenge.body.toString());
  const cookie = /\r\nset-cookie: *(kbs-session-id=[^;\r\n]*)/i.exec(challenge.head)?.[1];
  if (cookie === undefined) throw new Error('auth gave no session cookie');
  const attestation = await connection.ask('POST', '/kbs/v0/attest', { cookie }, evidence(nonce));
  check('attest', attestation);
  return { cookie, token: JSON.parse(attestation.body.toString()).token };
}

/** Sample evidence (Trustee's `sample` verifier): its report data is SHA-384 of the canonical runtime data. */
function evidence(nonce: string): string {
  const runtimeData = { nonce, 'tee-pubkey': { ...teePubKey } };
  const canonical = canonicalJson({ ...runtimeData, 'additional-evidence': '' });
  const reportData = createHash('sha384').update(canonical).digest('base64');
  return JSON.stringify({
    'init-data': null,
    'runtime-data': runtimeData,
    'tee-evidence': { primary_evidence: { svn: '1', report_data: reportData }, additional_evidence: '' },
  });
}

/** One client until `end`; adds the milliseconds of each operation to `latencies`. */
async function client(end: number, latencies: number[], token: string | undefined): Promise<void> {
  const connection = await KeepAliveConnection.open(url);
  try {
    while (performance.now() < end) {
      const began = performance.now();
      if (token === undefined) {
        const { cookie } = await attest(connection);
        check('resource', await connection.ask('GET', target, { cookie }));
      } else {
        check('resource', await connection.ask('GET', target, { authorization: `Bearer ${token}` }));
      }
      latencies.push(performance.now() - began);
    }
  } finally {
    connection.close();
  }
}

async function load(seconds: number): Promise<{ readonly latencies: number[]; readonly seconds: number }> {
  let token: string | undefined;
  if (values.mode === 'bearer') {
    const connection = await KeepAliveConnection.open(url);
    ({ token } = await attest(connection));
    connection.close();
  }
  const latencies: number[] = [];
  const began = performance.now();
  const clients = Array.from({ length: Number(values.concurrency) }, () =>
    client(began + seconds * 1000, latencies, token),
  );
  await Promise.all(clients);
  return { latencies, seconds: (performance.now() - began) / 1000 };
}

const pid = values['server-pid'] === undefined ? undefined : Number(values['server-pid']);
const used = (): number => (pid === undefined ? Number.NaN : processorSeconds(pid));
for (let run = 0; run < Number(values.runs); run++) {
  if (Number(values.warmup) > 0) await load(Number(values.warmup));
  const before = used();
  const { latencies, seconds } = await load(Number(values.duration));
  const spent = used() - before;
  console.log(JSON.stringify(summarize(latencies, seconds, spent)));
}
