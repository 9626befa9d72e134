import { appendFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { SandboxStatus } from '@sealpod/protocol/status';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Log } from './log.ts';
import { AdaptorMetrics } from './status/metrics.ts';
import { StartRecords } from './status/start-records.ts';
import { serveStatus } from './status-server.ts';

const pod = { name: 'web', namespace: 'shop', uid: 'u-1' };
const start = { pod, name: 'podvm-web', vcpus: 1, memoryMiB: 512 };
const image = { name: 'default', digest: 'sha256:00', rootHash: 'ff' };
let folder: string;
let told: Record<string, unknown>[];
let cleanups: (() => Promise<unknown>)[];
let authority: string | undefined;
const log: Log = {
  info: (fields, message) => told.push({ ...fields, message }),
  warn: (fields, message) => told.push({ ...fields, message }),
  error: (fields, message) => told.push({ ...fields, message }),
};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sp-status-'));
  told = [];
  authority = undefined;
  cleanups = [];
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  rmSync(folder, { recursive: true, force: true });
});

const socket = () => join(folder, 'status.sock');
const console_ = () => join(folder, 'console.log');
const instance = () => ({
  sandboxId: 's-1',
  name: 'podvm-web',
  directory: folder,
  id: String(process.pid),
  agentSocketPath: '',
  consoleLogPath: console_(),
  image,
});

async function open(now?: () => number): Promise<StartRecords> {
  const metrics = new AdaptorMetrics();
  const starts = await StartRecords.open(folder, { log, listener: metrics, ...(now ? { now } : {}) });
  metrics.observe(() => starts.list());
  const close = await serveStatus(socket(), { starts, metrics, tpmAuthority: async () => authority });
  cleanups.push(async () => {
    await close();
    await starts.close();
  });
  return starts;
}

function get(path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    request({ socketPath: socket(), path }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    })
      .once('error', reject)
      .end();
  });
}

async function sandboxes(): Promise<readonly SandboxStatus[]> {
  return JSON.parse((await get('/v1/sandboxes')).body).sandboxes;
}

const line = (uptime: number, fields: object): string => `${JSON.stringify({ time: 't', uptime, ...fields })}\n`;

async function booted(starts: StartRecords): Promise<void> {
  const teller = starts.of('s-1');
  starts.begin('s-1', start);
  await teller.during('creating-vm', undefined, async () => teller.runsAs(instance()));
  await teller.during('booting', undefined, async () => writeFileSync(console_(), line(1, { message: 'serving' })));
  teller.state('running');
}

it('serves what the adaptor saw and the guest told, to its own user only', async () => {
  const starts = await open();
  await booted(starts);
  expect(statSync(socket()).mode & 0o777).toBe(0o600);
  const pulled = { message: 'stage', stage: 'pulling', container: 'main', ms: 700, code: 'OK' };
  appendFileSync(
    console_(),
    line(900, { message: 'stage', stage: 'attesting', ms: 5, code: 'OK', correlation: 'c-9' }),
  );
  appendFileSync(console_(), line(901, pulled).slice(0, 20));
  const [first] = await sandboxes();
  expect(first).toMatchObject({ sandboxId: 's-1', pod, state: 'running', correlationId: 'c-9', vm: { image } });
  appendFileSync(console_(), line(901, pulled).slice(20));
  const stages = (await sandboxes())[0]?.stages.map(({ stage, part, code }) => [stage, part, code].join(' '));
  expect(stages).toEqual(['creating-vm  OK', 'booting  OK', 'booting firmware OK', 'attesting  OK', 'pulling  OK']);
  expect(told).toContainEqual(expect.objectContaining({ sandbox: 's-1', stage: 'attesting', correlationId: 'c-9' }));
  expect((await get('/elsewhere')).status).toBe(404);
});

it('counts stages, failures, machines and their memory', async () => {
  const starts = await open();
  await booted(starts);
  const refused = {
    message: 'stage',
    stage: 'attesting',
    ms: 5,
    code: 'POLICY_DENY',
    error: 'denied',
    correlation: 'c',
  };
  appendFileSync(console_(), line(900, refused));
  const { body } = await get('/metrics');
  expect(body).toContain('sealpod_adaptor_stage_duration_seconds_count{stage="booting",part=""} 1');
  expect(body).not.toContain('stage="attesting"');
  expect(body).toContain('sealpod_adaptor_failures_total{code="POLICY_DENY"} 1');
  expect(body).toContain('sealpod_adaptor_sandboxes{state="running"} 1');
  expect(body).toContain(`sealpod_adaptor_vm_memory_bytes ${512 * 2 ** 20}`);
});

it("tells the authority of its machines' TPMs, where it is one", async () => {
  await open();
  expect((await get('/v1/tpm-authority')).status).toBe(404);
  authority = '-----BEGIN CERTIFICATE-----\n';
  expect(await get('/v1/tpm-authority')).toEqual({ status: 200, body: authority });
});

it('keeps a failed start with its reason, also over a restart of the adaptor', async () => {
  let now = 1_000_000;
  const starts = await open(() => now);
  await booted(starts);
  const second = { ...start, pod: { ...pod, name: 'second' } };
  starts.begin('s-2', second);
  const teller = starts.of('s-2');
  const failure = new SealpodError('AGENT_UNREACHABLE', 'no agent');
  await expect(teller.during('booting', undefined, () => Promise.reject(failure))).rejects.toBe(failure);
  await teller.failed(failure);
  teller.state('ended');
  starts.refuse('s-3', { ...start, pod: { ...pod, name: 'third' } }, new SealpodError('RATE_LIMIT', 'no more'));
  // One that exists is not told of as failed because somebody asked for another under its name.
  starts.refuse('s-1', start, new SealpodError('REQUEST_FORMAT', 'exists'));
  for (const cleanup of cleanups.splice(0)) await cleanup();

  const again = await open(() => now);
  again.endOthers(new Set(['s-1']));
  expect((await sandboxes()).map(({ pod: { name }, state, refusal }) => [name, state, refusal?.code])).toEqual([
    ['web', 'running', undefined],
    ['second', 'failed', 'AGENT_UNREACHABLE'],
    ['third', 'failed', 'RATE_LIMIT'],
  ]);
  expect((await sandboxes())[1]?.refusal).toMatchObject({ stage: 'booting', count: 1 });
  now += 16 * 60_000;
  await sandboxes();
  expect((await sandboxes()).map(({ sandboxId }) => sandboxId)).toEqual(['s-1']);
});

it('starts without history where the file is damaged, and says so', async () => {
  writeFileSync(join(folder, 'starts.json'), '{');
  const starts = await open();
  expect(starts.list()).toEqual([]);
  expect(told).toContainEqual(expect.objectContaining({ message: 'the records of earlier starts cannot be read' }));
});
