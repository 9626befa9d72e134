import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { createLocalJWKSet, decodeJwt, type JSONWebKeySet, jwtVerify } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectAttestationService } from './index.ts';
import { bundleAttestationService } from './scripts/bundle.ts';

let folder: string;
let program: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'workers-'));
  program = await bundleAttestationService(join(folder, 'program'));
}, 60_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Running {
  readonly child: ChildProcess;
  readonly rest: string;
  readonly grpc: string;
  workers(): number[];
}

async function start(name: string, changes: object = {}): Promise<Running> {
  const home = join(folder, name);
  mkdirSync(home, { mode: 0o700 });
  const file = join(home, 'config.json');
  const fronts = { listen: '127.0.0.1:0', rest: { listen: '127.0.0.1:0' }, openAdministration: true };
  writeFileSync(file, JSON.stringify({ storage: 'data/db.sqlite', ...fronts, sample: true, workers: 2, ...changes }));
  const child = spawn(process.execPath, [program, '--config', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  let told = '';
  child.stderr.on('data', (chunk: Buffer) => {
    told += chunk.toString();
  });
  const [line] = await Promise.race([
    once(createInterface(child.stdout), 'line'),
    once(child, 'close').then(([code]) => Promise.reject(new Error(`it ended with ${code}: ${told}`))),
  ]);
  const { port, restPort } = JSON.parse(line as string) as { port: number; restPort: number };
  const workers = (): number[] =>
    readdirSync(`/proc/${child.pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${child.pid}/task/${task}/children`, 'latin1').split(' ').filter(Boolean).map(Number),
    );
  return { child, rest: `http://127.0.0.1:${restPort}`, grpc: `127.0.0.1:${port}`, workers };
}

async function stop({ child }: Running): Promise<number | null> {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const [code] = await ended;
  return code as number | null;
}

/** A connection of its own each time, so that the processes are asked in turn. */
async function post(url: string, path: string, body: object): Promise<{ status: number; text: string }> {
  const headers = { 'content-type': 'application/json', connection: 'close' };
  const answer = await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: answer.status, text: await answer.text() };
}
const evidence = Buffer.from('{"svn":"1","report_data":""}').toString('base64url');
const attest = (url: string) =>
  post(url, '/attestation', { verification_requests: [{ tee: 'sample', evidence }], policy_ids: [] });

describe('worker processes', { timeout: 60_000 }, () => {
  it('sign with one key and see what another was told, over REST and gRPC', async () => {
    const running = await start('shared');
    expect(running.workers()).toHaveLength(2);
    const keys = createLocalJWKSet(
      (await (await fetch(`${running.rest}/.well-known/jwks.json`)).json()) as JSONWebKeySet,
    );
    for (let at = 0; at < 6; at++) await jwtVerify((await attest(running.rest)).text, keys);
    const policy = Buffer.from('package policy\nimport rego.v1\ntrust_claims := {"hardware": 2}').toString('base64url');
    expect((await post(running.rest, '/policy', { policy_id: 'default_cpu', policy })).status).toBe(200);
    for (let at = 0; at < 6; at++) {
      const { submods } = decodeJwt((await attest(running.rest)).text) as {
        submods: Record<string, Record<string, unknown>>;
      };
      expect(submods['cpu0']?.['ear.status']).toBe('affirming');
    }
    const client = connectAttestationService({ address: running.grpc });
    const over = await client.evaluate({
      evidences: [{ tee: 'sample', evidence: { svn: '1', report_data: '' } }],
      policyIds: [],
      correlationId: 'c',
    });
    await jwtVerify(over.token, keys);
    await client.close();
    expect(await stop(running)).toBe(0);
  });

  it('go on where one dies, which is replaced', async () => {
    const running = await start('dying');
    const [victim = 0] = running.workers();
    process.kill(victim, 'SIGKILL');
    await delay(200);
    for (let at = 0; at < 4; at++) expect((await attest(running.rest)).status).toBe(200);
    for (let at = 0; at < 100 && running.workers().length < 2; at++) await delay(100);
    expect(running.workers()).toHaveLength(2);
    expect(running.workers()).not.toContain(victim);
    for (let at = 0; at < 4; at++) expect((await attest(running.rest)).status).toBe(200);
    expect(await stop(running)).toBe(0);
  });

  it('that cannot start end the program with the reason', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    await expect(start('broken', { listen: `127.0.0.1:${port}` })).rejects.toThrow(/ended with 1: .*NETWORK/s);
    taken.close();
  });
});
