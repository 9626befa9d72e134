import { createPrivateKey } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  encryptResponse,
  parseAttestation,
  runtimeDataDigest,
  serializeErrorInformation,
  type TeePubKey,
  teePubKeyOf,
} from '@sealpod/protocol/rcar';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import { parseResourceUri } from '@sealpod/protocol/resource-uri';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createSampleAttester } from '../attesters/sample/sample-attester.ts';
import {
  createServerIdentity,
  type ReceivedRequest,
  type ScriptedAnswer,
  type ScriptedServer,
  type ServerIdentity,
  startScriptedServer,
} from '../testing/https-server.ts';
import { AttestationAgent, type AttestationAgentOptions } from './attestation-agent.ts';
import { PinnedHttps } from './pinned-https.ts';
import { describeFailure } from './refusal.ts';

const key1 = parseResourceUri('kbs:///default/key/1');
let identity: ServerIdentity;
let other: ServerIdentity;
const closers: (() => Promise<void> | void)[] = [];

beforeAll(async () => {
  [identity, other] = await Promise.all([createServerIdentity(), createServerIdentity()]);
});
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function failure(promise: Promise<unknown>): Promise<SealpodError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof SealpodError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

async function serve(
  answer: (request: ReceivedRequest) => ScriptedAnswer | Promise<ScriptedAnswer>,
  own = identity,
): Promise<ScriptedServer> {
  const server = await startScriptedServer(own, answer);
  closers.push(() => server.close());
  return server;
}

function connectionTo(url: string, pinned = identity.cert): PinnedHttps {
  const connection = new PinnedHttps({ url, pinned });
  closers.push(() => connection.close());
  return connection;
}

function agentOf(url: string, options: Partial<AttestationAgentOptions> = {}): AttestationAgent {
  return new AttestationAgent({
    connection: connectionTo(url),
    attester: createSampleAttester(),
    attempts: 3,
    retryDelayMs: 1,
    ...options,
  });
}

function jwt(claims: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'ES256' })}.${part(claims)}.c2ln`;
}

/** A key broker as far as a guest sees it: sessions, tokens named after them, resources for the session's key. */
function broker(behaviour: { lifetime?: number; deny?: (session: number) => ReasonCode | undefined } = {}) {
  const keys = new Map<number, TeePubKey>();
  let sessions = 0;
  const answer = (request: ReceivedRequest): ScriptedAnswer => {
    if (request.target === '/kbs/v0/auth') {
      sessions++;
      const nonce = Buffer.alloc(32, sessions).toString('base64');
      const headers = { 'set-cookie': `kbs-session-id=s${sessions}; Expires=Sun, 22 Nov 2026 17:30:40 GMT` };
      return { status: 200, headers, body: JSON.stringify({ nonce, 'extra-params': '' }) };
    }
    if (request.target === '/kbs/v0/attest') {
      const session = Number(/kbs-session-id=s(\d+)/.exec(String(request.headers['cookie']))?.[1]);
      const { runtimeData, teeEvidence } = parseAttestation(request.body);
      const bound = runtimeDataDigest({ ...runtimeData, additionalEvidence: teeEvidence.additionalEvidence });
      expect(teeEvidence.primaryEvidence).toEqual({ report_data: bound.toString('base64'), svn: '1' });
      keys.set(session, runtimeData.teePubKey);
      const iat = 1_000_000;
      return {
        status: 200,
        body: JSON.stringify({ token: jwt({ iat, exp: iat + (behaviour.lifetime ?? 300), jti: session }) }),
      };
    }
    const session: number = JSON.parse(
      Buffer.from(String(request.headers['authorization']).split('.')[1] ?? '', 'base64url').toString(),
    ).jti;
    const code = behaviour.deny?.(session);
    if (code !== undefined) {
      const type = 'https://github.com/confidential-containers/kbs/errors/PolicyDeny';
      return {
        status: 401,
        body: serializeErrorInformation({ type, detail: 'Access denied by policy', code, correlationId: 'c-42' }),
      };
    }
    const key = keys.get(session);
    if (key === undefined) return { status: 401, body: '{}' };
    return { status: 200, body: JSON.stringify(encryptResponse(key, Buffer.from(`secret of ${session}`))) };
  };
  return { answer, sessions: () => sessions, keys };
}

describe('RCAR client against the recorded exchanges of the real key broker', () => {
  const folder = vectorPath('recorded/rcar');
  interface Recorded {
    readonly keys: Record<string, { readonly pem: string }>;
    readonly exchanges: readonly {
      readonly request: {
        readonly method: string;
        readonly target: string;
        readonly headers: readonly [string, string][];
        readonly body_utf8: string;
      };
      readonly response: {
        readonly status: number;
        readonly headers: readonly [string, string][];
        readonly body_utf8: string;
      };
      readonly jwe?: { readonly plain_base64: string };
    }[];
  }

  it.for(['p256', 'p521'])(
    'a session of the sample attester with a %s key: same requests, resource opens',
    async (name, context) => {
      const file = `${folder}/cli-get-resource-${name}.json`;
      if (!existsSync(file)) context.skip(`${file} is absent`);
      const recorded = JSON.parse(readFileSync(file, 'utf8')) as Recorded;
      // The recorded client asks for the resource first, without a session, and is sent to attest.
      const exchanges = recorded.exchanges.slice(1);
      let next = 0;
      const server = await serve((request) => {
        const exchange = exchanges[next++];
        expect(request.method).toBe(exchange?.request.method);
        expect(request.target).toBe(exchange?.request.target);
        for (const name of ['content-type', 'user-agent', 'accept']) {
          expect([name, request.headers[name]]).toEqual([
            name,
            exchange?.request.headers.find(([header]) => header === name)?.[1],
          ]);
        }
        const expected = exchange?.request.body_utf8 ?? '';
        // Upstream offers SM3, which we cannot compute; everything else is the same byte for byte.
        expect(request.body).toBe(expected.replace(',"sm3"', ''));
        if (request.target.endsWith('/attest')) {
          expect(request.headers['cookie']).toBe(
            exchange?.request.headers.find(([header]) => header === 'cookie')?.[1],
          );
        }
        return {
          status: exchange?.response.status ?? 500,
          headers: Object.fromEntries(exchange?.response.headers ?? []),
          body: exchange?.response.body_utf8 ?? '',
        };
      });
      const privateKey = createPrivateKey(recorded.keys[name]?.pem ?? '');
      const agent = agentOf(server.url, {
        newTeeKey: async () => ({ privateKey, teePubKey: teePubKeyOf(privateKey) }),
      });
      const resource = await agent.resource(key1);
      expect(resource.toString('base64')).toBe(exchanges[2]?.jwe?.plain_base64);
      expect(next).toBe(3);
      const token = JSON.parse(exchanges[1]?.response.body_utf8 ?? '').token;
      expect(server.requests[2]?.headers['authorization']).toBe(`Bearer ${token}`);
    },
  );

  it('a policy that denies: the code and no endless attesting', async (context) => {
    const file = `${folder}/cli-policy-deny.json`;
    if (!existsSync(file)) context.skip(`${file} is absent`);
    const recorded = JSON.parse(readFileSync(file, 'utf8')) as Recorded;
    const find = (path: string) => recorded.exchanges.find(({ request }) => request.target.endsWith(path))?.response;
    const denial = recorded.exchanges.find(({ response }) => response.body_utf8.includes('PolicyDeny'))?.response;
    const server = await serve((request) => {
      const response = request.target.endsWith('/auth')
        ? find('/auth')
        : request.target.endsWith('/attest')
          ? find('/attest')
          : denial;
      return {
        status: response?.status ?? 500,
        headers: Object.fromEntries(response?.headers ?? []),
        body: response?.body_utf8 ?? '',
      };
    });
    const error = await failure(agentOf(server.url).resource(key1));
    expect(error.code).toBe('POLICY_DENY');
    expect(server.requests).toHaveLength(3);
  });
});

describe('AttestationAgent', () => {
  it('attests once for many concurrent callers and all resources of a token', async () => {
    const { answer, sessions } = broker();
    const server = await serve(answer);
    const agent = agentOf(server.url);
    const results = await Promise.all(Array.from({ length: 10 }, () => agent.resource(key1)));
    expect(new Set(results.map(String))).toEqual(new Set(['secret of 1']));
    expect(String(await agent.resource(parseResourceUri('kbs:///a/b/c')))).toBe('secret of 1');
    expect(sessions()).toBe(1);
  });

  it('attests again when a tenth of the life of the token is left, by the monotonic clock', async () => {
    const { answer, sessions } = broker({ lifetime: 100 });
    const server = await serve(answer);
    let now = 5000;
    const agent = agentOf(server.url, { now: () => now });
    await agent.resource(key1);
    now += 89_000;
    await agent.resource(key1);
    expect(sessions()).toBe(1);
    now += 2_000;
    expect(String(await agent.resource(key1))).toBe('secret of 2');
    expect(sessions()).toBe(2);
  });

  it('attests again where the token is no longer accepted, once', async () => {
    const revoked = new Set([1]);
    const { answer, sessions } = broker({ deny: (session) => (revoked.has(session) ? 'TOKEN_INVALID' : undefined) });
    const agent = agentOf((await serve(answer)).url);
    expect(String(await agent.resource(key1))).toBe('secret of 2');
    expect(sessions()).toBe(2);
    revoked.add(2).add(3);
    expect((await failure(agent.resource(key1))).code).toBe('TOKEN_INVALID');
    expect(sessions()).toBe(3);
  });

  it('tells the code and the correlation id of a refusal, and asks again only with an older appraisal', async () => {
    let denied = true;
    const { answer, sessions } = broker({ deny: (session) => (denied || session < 2 ? 'POLICY_DENY' : undefined) });
    const agent = agentOf((await serve(answer)).url);
    const error = await failure(agent.resource(key1));
    expect(error.code).toBe('POLICY_DENY');
    expect(error.detail.correlationId).toBe('c-42');
    expect(describeFailure(error)).toBe(
      'POLICY_DENY: the key broker refused the resource: Access denied by policy (correlation c-42)',
    );
    expect(sessions()).toBe(1);
    // The owner registers what was missing: the next call is appraised anew instead of by the cached token.
    denied = false;
    expect(String(await agent.resource(key1))).toBe('secret of 2');
  });

  it('G-25: refuses an answer that is encrypted to the key of another session', async () => {
    const { answer, keys } = broker();
    const stranger = broker();
    await agentOf((await serve(stranger.answer)).url).token();
    const foreign = stranger.keys.get(1);
    if (foreign === undefined) throw new Error('the other guest did not attest');
    const server = await serve((request) => {
      if (request.method === 'GET')
        return { status: 200, body: JSON.stringify(encryptResponse(foreign, Buffer.from('other'))) };
      return answer(request);
    });
    const agent = agentOf(server.url);
    expect((await failure(agent.resource(key1))).code).toBe('EV_BINDING_MISMATCH');
    expect(keys.get(1)).not.toEqual(foreign);
  });

  it('retries where the broker lost the session, and gives its reason in the end', async () => {
    const { answer } = broker();
    let lost = 2;
    const type = 'https://github.com/confidential-containers/kbs/errors/AttestationError';
    const server = await serve((request) => {
      if (request.target.endsWith('/attest') && lost-- > 0) {
        return { status: 401, body: serializeErrorInformation({ type, detail: 'x', code: 'SESSION_UNKNOWN' }) };
      }
      return answer(request);
    });
    expect(String(await agentOf(server.url).resource(key1))).toBe('secret of 3');
    lost = 99;
    expect((await failure(agentOf(server.url).resource(key1))).code).toBe('SESSION_UNKNOWN');
  });

  it.each([
    [
      'an upstream refusal',
      { status: 401, body: '{"type":"https://x/AttestationError","detail":"RCAR handshake Attest failed"}' },
      'EV_REFUSED',
    ],
    [
      'a reason of ours',
      { status: 401, body: '{"type":"x","detail":"d","code":"EV_SIGNATURE","correlation-id":"c"}' },
      'EV_SIGNATURE',
    ],
    ['no JSON', { status: 500, body: '<html>' }, 'EV_REFUSED'],
    ['a token that is no JWT', { status: 200, body: '{"token":"x"}' }, 'TOKEN_INVALID'],
    ['a token without exp', { status: 200, body: JSON.stringify({ token: jwt({}) }) }, 'TOKEN_INVALID'],
    ['no token', { status: 200, body: '{}' }, 'REQUEST_FORMAT'],
    ['too much', { status: 200, body: Buffer.alloc(9 << 20) }, 'REQUEST_TOO_LARGE'],
  ])('refuses when attest answers with %s', async (_, answered, code) => {
    const { answer, sessions } = broker();
    const server = await serve((request) => (request.target.endsWith('/attest') ? answered : answer(request)));
    expect((await failure(agentOf(server.url).token())).code).toBe(code);
    expect(sessions()).toBe(1);
  });

  it('refuses a challenge without cookie or nonce', async () => {
    const noCookie = await serve(() => ({ status: 200, body: '{"nonce":"AA==","extra-params":""}' }));
    expect((await failure(agentOf(noCookie.url).token())).code).toBe('REQUEST_FORMAT');
    const noNonce = await serve(() => ({
      status: 200,
      headers: { 'set-cookie': 'kbs-session-id=1' },
      body: '{"extra-params":""}',
    }));
    expect((await failure(agentOf(noNonce.url).token())).code).toBe('REQUEST_FORMAT');
  });

  it('refuses everything without a broker in initdata', async () => {
    const agent = new AttestationAgent({ attester: createSampleAttester() });
    expect((await failure(agent.token())).code).toBe('KBS_UNREACHABLE');
    expect(await agent.evidence(Buffer.from('hello'))).toBe('{"report_data":"aGVsbG8=","svn":"1"}');
  });

  it('sends the initdata document exactly as it was measured', async () => {
    const { answer } = broker();
    const server = await serve(answer);
    await agentOf(server.url, { initdata: 'version = "0.1.0"\r\n# ä\n' }).token();
    expect(parseAttestation(server.requests[1]?.body ?? '').initData).toEqual({
      format: 'toml',
      body: 'version = "0.1.0"\r\n# ä\n',
    });
  });
});

describe('PinnedHttps', () => {
  it('G-18: knows the broker by its key: another server at the same address gets not one byte of a request', async () => {
    const spoofed = await serve(() => ({ status: 200, body: '{}' }), other);
    const error = await failure(agentOf(spoofed.url).resource(key1));
    expect(error.code).toBe('KBS_KEY');
    expect(error.detail.expected).not.toBe(error.detail.actual);
    expect(spoofed.requests).toHaveLength(0);
  });

  it('G-18: neither name nor dates of the certificate matter, so DNS and clock of the host decide nothing', async () => {
    const old = await createServerIdentity('some.other.name', new Date('2001-01-01'));
    const { answer } = broker();
    const server = await serve(answer, old);
    const agent = new AttestationAgent({
      connection: connectionTo(`https://localhost:${server.port}`, old.cert),
      attester: createSampleAttester(),
    });
    expect(String(await agent.resource(key1))).toBe('secret of 1');
  });

  it('G-18: a certificate for the right name from anyone else is refused', async () => {
    const impostor = await createServerIdentity('localhost');
    const server = await serve(() => ({ status: 200 }), impostor);
    expect((await failure(agentOf(`https://localhost:${server.port}`).token())).code).toBe('KBS_KEY');
    expect(server.requests).toHaveLength(0);
  });

  it('accepts any one of several pinned keys, so that a key can be changed', async () => {
    const { answer } = broker();
    const server = await serve(answer, other);
    const connection = connectionTo(server.url, identity.cert + other.cert);
    expect((await connection.send({ method: 'POST', path: '/kbs/v0/auth', body: '{}' })).status).toBe(200);
  });

  it('keeps one connection for a session', async () => {
    const { answer } = broker();
    const server = await serve(answer);
    await agentOf(server.url).resource(key1);
    expect(server.requests).toHaveLength(3);
    expect(server.connections()).toBe(1);
  });

  it.each([
    ['http://127.0.0.1:1', 'INITDATA_SCHEMA'],
    ['https://user@127.0.0.1:1', 'INITDATA_SCHEMA'],
    ['https://127.0.0.1:1/?a=b', 'INITDATA_SCHEMA'],
    ['nonsense', 'INITDATA_SCHEMA'],
  ])('refuses the address %s', (url, code) => {
    expect(() => new PinnedHttps({ url, pinned: identity.cert })).toThrow(expect.objectContaining({ code }));
  });

  it.each(['', 'x', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'])(
    'refuses the pin %j',
    (pinned) => {
      expect(() => new PinnedHttps({ url: 'https://127.0.0.1:1', pinned })).toThrow(
        expect.objectContaining({ code: 'KBS_KEY' }),
      );
    },
  );

  it('says that the broker is away', async () => {
    const server = await startScriptedServer(identity, () => ({ status: 200 }));
    await server.close();
    const error = await failure(agentOf(server.url).token());
    expect(error.code).toBe('KBS_UNREACHABLE');
    expect(error.message).toContain(`127.0.0.1:${server.port}`);
  });

  it('says that the broker is away when it does not answer in time', async () => {
    const server = await serve(() => new Promise(() => undefined));
    const connection = new PinnedHttps({ url: server.url, pinned: identity.cert, timeoutMs: 50 });
    closers.push(() => connection.close());
    expect((await failure(connection.send({ method: 'GET', path: '/' }))).code).toBe('KBS_UNREACHABLE');
  });

  it('repeats a request whose kept connection was closed meanwhile', async () => {
    const { answer } = broker();
    const server = await startScriptedServer(identity, answer, { keepAliveTimeout: 0 });
    closers.push(() => server.close());
    const connection = connectionTo(server.url);
    for (let round = 0; round < 3; round++) {
      expect((await connection.send({ method: 'POST', path: '/kbs/v0/auth', body: '{}' })).status).toBe(200);
    }
  });
});
