import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { afterEach, expect, test } from 'vitest';
import { serveHealth } from './health.ts';
import { NodeAgentMetrics } from './metrics.ts';
import type { AgentStatus } from './status.ts';

let stop: (() => void) | undefined;
afterEach(() => stop?.());

async function serve(status: AgentStatus, longestLookMs = 60_000, adaptorSocket?: string) {
  const metrics = new NodeAgentMetrics();
  metrics.looked(status);
  const server = await serveHealth({
    ...{ address: '127.0.0.1', port: 0, status: () => status, metrics, longestLookMs },
    ...(adaptorSocket === undefined ? {} : { adaptorSocket }),
  });
  stop = () => server.close();
  const { port } = server.address() as AddressInfo;
  return async (path: string, method = 'GET') => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method });
    return [answer.status, await answer.text()] as const;
  };
}

test('a node that serves is alive and ready', async () => {
  const ask = await serve({ ready: true, release: '1.2.3', lookedAt: Date.now() });
  expect(await ask('/healthz')).toEqual([200, 'alive\n']);
  expect(await ask('/readyz')).toEqual([200, 'ready: release 1.2.3\n']);
  expect((await ask('/metrics'))[1]).toMatch(/^sealpod_node_ready 1$/m);
  expect((await ask('/else'))[0]).toBe(404);
  expect((await ask('/readyz', 'POST'))[0]).toBe(405);
});

test('a failure is told with code, values and what to do, and counted', async () => {
  const error = new SealpodError('PREREQUISITE', 'programs are missing', {
    expected: 'tc',
    actual: 'missing: tc',
    fix: 'install iproute2',
  });
  const ask = await serve({ ready: false, release: '1.2.3', failure: { stage: 'host', error }, lookedAt: Date.now() });
  expect(await ask('/readyz')).toEqual([
    503,
    'host: PREREQUISITE: programs are missing\nexpected: tc\nactual: missing: tc\nto do: install iproute2\n',
  ]);
  expect((await ask('/healthz'))[0]).toBe(200);
  const [, metrics] = await ask('/metrics');
  expect(metrics).toMatch(/^sealpod_node_ready 0$/m);
  expect(metrics).toMatch(/^sealpod_node_failures_total{stage="host",code="PREREQUISITE"} 1$/m);
});

test('before the first look nothing is ready, and an agent that hangs is not alive', async () => {
  expect(await (await serve({ ready: false, release: '1' }))('/readyz')).toEqual([
    503,
    'starting: the node is looked at for the first time\n',
  ]);
  stop?.();
  const [code, text] = await (await serve({ ready: true, release: '1', lookedAt: Date.now() - 5000 }, 1000))(
    '/healthz',
  );
  expect([code, text]).toEqual([503, 'the node was not looked at for 5 s\n']);
});

test("the authority of machines' TPMs is told as the adaptor tells it, and its absence with the reason", async () => {
  const status: AgentStatus = { ready: true, release: '1', lookedAt: Date.now() };
  expect(await (await serve(status))('/tpm-authority')).toEqual([
    404,
    'no authority of TPMs is known: this node has no adaptor\n',
  ]);
  stop?.();
  const folder = mkdtempSync(join(tmpdir(), 'sealpod-health-'));
  const socket = join(folder, 'adaptor.sock');
  const certificates = '-----BEGIN CERTIFICATE-----\n';
  const adaptor = createServer(({ url }, response) => {
    response.writeHead(url === '/v1/tpm-authority' ? 200 : 404).end(certificates);
  });
  try {
    const ask = await serve(status, 60_000, socket);
    expect(await ask('/tpm-authority')).toEqual([404, expect.stringContaining(`nobody answers on ${socket}`)]);
    await new Promise<void>((resolve) => adaptor.listen(socket, resolve));
    expect(await ask('/tpm-authority')).toEqual([200, certificates]);
  } finally {
    adaptor.close();
    rmSync(folder, { recursive: true });
  }
});
