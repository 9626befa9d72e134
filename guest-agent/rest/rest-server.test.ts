import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { SealpodError } from '@sealpod/protocol/errors';
import { resourceHttpPath } from '@sealpod/protocol/resource-uri';
import { afterEach, describe, expect, it } from 'vitest';
import { AttestationAgent } from '../attestation-agent/attestation-agent.ts';
import { createSampleAttester } from '../attesters/sample/sample-attester.ts';
import { DataHub } from '../data-hub/data-hub.ts';
import { recording } from '../testing/recorded.ts';
import { isLocalHost, isLoopback, type RestFeatures, type RestServer, startRestServer } from './rest-server.ts';

interface RecordedExchange {
  readonly label: string;
  readonly side?: string;
  readonly request: { readonly method: string; readonly target: string; readonly body_utf8?: string };
  readonly response: {
    readonly status: number;
    readonly headers: readonly [string, string][];
    readonly body_utf8?: string;
    readonly body_base64?: string;
  };
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

const servers: RestServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function start(features: RestFeatures): Promise<RestServer> {
  const resources = new Map([
    ['default/key/1', Buffer.from('guest secret é\n')],
    ['default/key/bin', Buffer.from([0, 1, 255])],
    ['default/key/empty', Buffer.alloc(0)],
  ]);
  const attestationAgent = new AttestationAgent({ attester: createSampleAttester() });
  const dataHub = new DataHub({
    attestationAgent: {
      resource: async (uri) => {
        const found = resources.get(resourceHttpPath(uri).slice('/kbs/v0/resource/'.length));
        if (found === undefined)
          throw new SealpodError('POLICY_DENY', 'Access denied by policy', { correlationId: 'c-9' });
        return found;
      },
    },
  });
  const server = await startRestServer({ attestationAgent, dataHub, features, version: 'sealpod 0.0.0', port: 0 });
  servers.push(server);
  return server;
}

/** Sends the target as it is: no client library normalises it on the way. */
function send(port: number, method: string, path: string, body?: string, host?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = host === undefined ? {} : { host };
    const outgoing = request({ host: '127.0.0.1', port, method, path, agent: false, headers }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.once('end', () =>
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks) }),
      );
    });
    outgoing.once('error', reject);
    outgoing.end(body);
  });
}

describe('recorded exchanges of the real api-server-rest, replayed', () => {
  /** Where we answer otherwise on purpose. */
  const different: Readonly<Record<string, readonly string[]>> = {
    // Our version text.
    'guest/asr-info': ['GET /info (all)', 'GET /info (resource)'],
    // Needs a broker (attestation-agent.test.ts), or a type of token that this guest does not make.
    'guest/asr-token': ['kbs', 'coco_as (AA → restful-as)', 'type twice (last wins)'],
    // G-24: no rewriting of names on the way to the broker.
    'guest/asr-resource': ['percent-encoded', 'dot-dot'],
    'guest/asr-evidence': [],
    'guest/asr-aael': [],
  };

  it.for(Object.keys(different))('%s', async (name, context) => {
    const { path, missing } = recording(name);
    if (missing !== undefined) context.skip(missing);
    const { exchanges } = JSON.parse(readFileSync(path, 'utf8')) as { exchanges: readonly RecordedExchange[] };
    const mine = exchanges.filter(
      ({ side, label }) => side?.startsWith('asr') === true && different[name]?.includes(label) !== true,
    );
    expect(mine.length).toBeGreaterThan(1);
    const ports = { asr: (await start('all')).port, 'asr-resource-only': (await start('resource')).port };
    for (const { label, side, request: sent, response } of mine) {
      const port = side === 'asr-resource-only' ? ports['asr-resource-only'] : ports.asr;
      const answer = await send(port, sent.method, sent.target, sent.body_utf8 === '' ? undefined : sent.body_utf8);
      const type = response.headers.find(([header]) => header === 'content-type')?.[1];
      expect([label, answer.status, answer.headers['content-type']]).toEqual([label, response.status, type]);
      const expected =
        response.body_utf8 === undefined
          ? Buffer.from(response.body_base64 ?? '', 'base64')
          : Buffer.from(response.body_utf8);
      // The JSON parser's own words follow upstream's.
      const prefix = 'Illegal AAEL eventry format: ';
      if (expected.toString().startsWith(prefix)) expect(answer.body.toString()).toContain(prefix);
      else expect([label, answer.body.toString('latin1')]).toEqual([label, expected.toString('latin1')]);
    }
  });
});

describe('REST API', () => {
  it('tells reason and correlation id in headers, and nothing else', async () => {
    const { port } = await start('all');
    const answer = await send(port, 'GET', '/cdh/resource/default/key/none');
    expect(answer.status).toBe(500);
    expect(answer.body.toString()).toBe('ttrpc request error');
    expect(answer.headers['x-reason-code']).toBe('POLICY_DENY');
    expect(answer.headers['x-correlation-id']).toBe('c-9');
  });

  it.each([
    '/cdh/resource/default/key/../key/1',
    '/cdh/resource/default/key/%31',
    '/cdh/resource/default%2Fkey%2F1',
    '/cdh/resource//default/key/1',
  ])('G-24: refuses %s', async (path) => {
    const { port } = await start('all');
    const answer = await send(port, 'GET', path);
    expect([answer.status, answer.headers['x-reason-code']]).toEqual([500, 'RES_NAME']);
  });

  it('says what it serves', async () => {
    const { port } = await start('all');
    expect(JSON.parse((await send(port, 'GET', '/info')).body.toString())).toEqual({
      version: 'sealpod 0.0.0',
      tee: 'sample',
      feature: 'all',
    });
    const resource = await start('resource');
    expect(JSON.parse((await send(resource.port, 'GET', '/info')).body.toString())).toEqual({
      version: 'sealpod 0.0.0',
      feature: 'resource',
    });
    const attestation = await start('attestation');
    expect((await send(attestation.port, 'GET', '/cdh/resource/default/key/1')).body.toString()).toBe(
      'Resource Feature Not Enabled',
    );
  });

  it('refuses a body that is too long', async () => {
    const { port } = await start('all');
    const answer = await send(port, 'POST', '/aa/aael', `{"domain":"${'x'.repeat(70_000)}"}`);
    expect(answer.status).toBe(500);
    expect(answer.body.toString()).toContain('Illegal AAEL eventry format: the body exceeds');
  });

  it.each([
    ['127.0.0.1', true],
    ['127.9.9.9', true],
    ['::1', true],
    ['::ffff:127.0.0.1', true],
    ['10.0.0.1', false],
    ['::ffff:10.0.0.1', false],
    ['fe80::1', false],
    ['1127.0.0.1', false],
    [undefined, false],
  ])('answers a peer at %s: %s', (address, answered) => {
    expect(isLoopback(address)).toBe(answered);
  });
});

describe('DNS rebinding', () => {
  it('a program of the pod that was led here by a foreign name gets no secret', async () => {
    const { port } = await start('all');
    const target = '/cdh/resource/default/key/1';
    for (const host of ['attacker.example', `attacker.example:${port}`, '127.0.0.1.attacker.example', '10.0.0.1']) {
      const answer = await send(port, 'GET', target, undefined, host);
      expect([host, answer.status, answer.body.toString()]).toEqual([host, 403, 'Forbidden']);
    }
    for (const host of [`127.0.0.1:${port}`, 'localhost', `LocalHost:${port}`, '[::1]:8006']) {
      expect([host, (await send(port, 'GET', target, undefined, host)).status]).toEqual([host, 200]);
    }
    expect(isLocalHost(undefined)).toBe(true);
    expect(isLocalHost('')).toBe(false);
  });
});
