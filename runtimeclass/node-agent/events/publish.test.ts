import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { KubeConfig } from '@kubernetes/client-node';
import type { SandboxStatus } from '@sealpod/protocol/status';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { advertiseCapacity } from './capacity.ts';
import { type EventLog, publishPodEvents } from './publish.ts';
import { readPodStarts } from './read.ts';

interface Call {
  readonly method: string;
  readonly url: string;
  readonly type: string;
  readonly body: Record<string, unknown>;
}

let folder: string;
let ending: AbortController;
let calls: Call[];
let events: Map<string, Record<string, unknown>>;
let failing: number | undefined;
let sandboxes: SandboxStatus[];
let warnings: Record<string, unknown>[];
let servers: Server[];
let running: Promise<void>[];
const log: EventLog = { info: () => undefined, warn: (fields) => warnings.push(fields) };
const statusSocket = () => join(folder, 'status.sock');

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sp-events-'));
  ending = new AbortController();
  [calls, events, sandboxes, warnings, servers, running, failing] = [[], new Map(), [sandbox()], [], [], [], undefined];
  await serve(statusSocket(), () => ({ status: 200, body: { sandboxes } }));
});
afterEach(async () => {
  ending.abort();
  await Promise.all(running);
  for (const server of servers) await new Promise((resolve) => server.close(resolve).closeAllConnections());
  rmSync(folder, { recursive: true, force: true });
});

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return chunks.length === 0 ? {} : JSON.parse(Buffer.concat(chunks).toString());
}

async function serve(at: string | 0, answer: (call: Call) => { status: number; body: object }): Promise<number> {
  const server = createServer(async (request, response) => {
    const type = String(request.headers['content-type'] ?? '');
    const call = { method: request.method ?? '', url: request.url ?? '', type, body: await bodyOf(request) };
    const { status, body } = answer(call);
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(at, () => resolve()));
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Behaves as an API server does for events and the status of a node. */
async function apiServer(): Promise<KubeConfig> {
  const port = await serve(0, (call) => {
    calls.push(call);
    if (failing !== undefined) return { status: failing, body: { kind: 'Status', code: failing } };
    const name = (call.body['metadata'] as { name?: string } | undefined)?.name ?? '';
    if (call.method === 'GET') return { status: 200, body: { items: [...events.values()], metadata: {} } };
    if (call.method === 'POST' && events.has(name)) return { status: 409, body: { kind: 'Status', code: 409 } };
    if (call.method === 'POST') events.set(name, call.body);
    return { status: 200, body: call.body };
  });
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser(
    { name: 'c', server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
    { name: 'u' },
  );
  return kubeConfig;
}

function sandbox(more: Partial<SandboxStatus> = {}): SandboxStatus {
  const startedAt = Date.now() - 60_000;
  return {
    sandboxId: 's-1',
    pod: { name: 'web', namespace: 'shop', uid: 'u-1' },
    state: 'running',
    createdAt: startedAt,
    vm: { name: 'podvm-web', vcpus: 1, memoryMiB: 512 },
    stages: [
      { stage: 'creating-vm', startedAt, durationMs: 900, code: 'OK' },
      { stage: 'attesting', startedAt: startedAt + 2000, durationMs: 400, code: 'OK', correlationId: 'c-1' },
      { stage: 'starting', startedAt: startedAt + 3000, durationMs: 100, code: 'OK', container: 'main' },
    ],
    ...more,
  };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('it did not happen');
    await delay(10);
  }
}

const publish = (kubeConfig: KubeConfig): Promise<void> => {
  const { signal } = ending;
  const options = { statusSocket: statusSocket(), kubeConfig, nodeName: 'n-1', signal, log, intervalMs: 20 };
  const work = publishPodEvents(options);
  running.push(work);
  return work;
};
const posts = () => calls.filter(({ method }) => method === 'POST');

it('publishes each event once, also when published again by another process', async () => {
  const kubeConfig = await apiServer();
  const first = publish(kubeConfig);
  await until(() => events.size === 3);
  expect(posts()[0]).toMatchObject({
    url: '/apis/events.k8s.io/v1/namespaces/shop/events',
    body: {
      regarding: { kind: 'Pod', name: 'web', namespace: 'shop', uid: 'u-1' },
      type: 'Normal',
      reason: 'VMCreated',
      action: 'creating-vm',
      reportingController: 'sealpod.io/node-agent',
      reportingInstance: 'n-1',
      eventTime: expect.stringMatching(/^\d{4}-.*\.\d{6}Z$/),
    },
  });
  await delay(100);
  expect(posts()).toHaveLength(3);
  ending.abort();
  await first;
  ending = new AbortController();
  void publish(kubeConfig);
  await until(() => posts().length === 6);
  expect(events.size).toBe(3);
  expect(calls.filter(({ method }) => method === 'PATCH')).toEqual([]);
  // What was published reads back as it was.
  const [read] = await readPodStarts(kubeConfig, {});
  expect(read).toMatchObject({ sandboxId: 's-1', correlationId: 'c-1', state: 'running', vm: { name: 'podvm-web' } });
  expect(read?.stages).toEqual(sandboxes[0]?.stages);
});

it('tells nothing that is older than what the API server keeps', async () => {
  const [stage] = sandbox().stages;
  if (stage === undefined) throw new Error('no stage');
  const old = { ...stage, startedAt: Date.now() - 2 * 3_600_000 };
  sandboxes = [sandbox({ stages: [old] }), sandbox({ sandboxId: 's-2', stages: [stage] })];
  void publish(await apiServer());
  await until(() => events.size === 1);
  await delay(100);
  expect(posts()).toHaveLength(1);
});

it('counts what is refused again in the series of the first event', async () => {
  const refusal = { code: 'IMG_DIGEST', message: 'altered', at: Date.now(), count: 1 } as const;
  sandboxes = [sandbox({ stages: [], refusals: [refusal] })];
  void publish(await apiServer());
  await until(() => events.size === 1);
  sandboxes = [sandbox({ stages: [], refusals: [{ ...refusal, count: 5 }] })];
  await until(() => calls.some(({ method }) => method === 'PATCH'));
  const patch = calls.find(({ method }) => method === 'PATCH');
  expect(patch?.type).toBe('application/merge-patch+json');
  expect(patch?.body['series']).toMatchObject({ count: 5 });
  // One more is not worth a write yet.
  sandboxes = [sandbox({ stages: [], refusals: [{ ...refusal, count: 6 }] })];
  await delay(100);
  expect(calls.filter(({ method }) => method === 'PATCH')).toHaveLength(1);
});

it('holds back what a pod brings too fast, and goes on when the API server answers again', async () => {
  const stage = (index: number) =>
    ({ stage: 'starting', startedAt: Date.now() - index, durationMs: 1, code: 'OK', container: `c-${index}` }) as const;
  sandboxes = [sandbox({ stages: Array.from({ length: 60 }, (_, index) => stage(index)) })];
  failing = 503;
  void publish(await apiServer());
  await until(() => warnings.length > 0);
  failing = undefined;
  await until(() => events.size >= 20);
  await delay(200);
  expect(events.size).toBeLessThanOrEqual(32);
});

it('gives up an event that is refused, and says so; sandboxes of no pod have none', async () => {
  failing = 403;
  sandboxes = [sandbox(), sandbox({ sandboxId: 's-2', pod: { name: '', namespace: '', uid: '' } })];
  void publish(await apiServer());
  await until(() => warnings.length === 3);
  await delay(100);
  expect(posts()).toHaveLength(3);
  expect(warnings[0]).toMatchObject({ status: 403, name: 'web', reason: 'VMCreated' });
});

it('advertises the capacity of the node', async () => {
  const options = { nodeName: 'n-1', resource: 'sealpod.io/vm', count: 2, signal: ending.signal, log };
  running.push(advertiseCapacity({ ...options, kubeConfig: await apiServer(), intervalMs: 50 }));
  await until(() => calls.length >= 2);
  const amount = { 'sealpod.io/vm': '2' };
  expect(calls[0]).toMatchObject({
    method: 'PATCH',
    url: '/api/v1/nodes/n-1/status',
    body: { status: { capacity: amount, allocatable: amount } },
  });
});
