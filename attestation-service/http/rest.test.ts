import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { request as plainRequest } from 'node:http';
import { request as secureRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PemConverter, SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import type { JsonObject } from '@sealpod/protocol/json';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { openStorage, type Storage } from '@sealpod/storage';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type AttestationService, createAttestationService } from '../index.ts';
import type { HttpFront } from './listen.ts';
import { type RestServerOptions, serveRest } from './rest-server.ts';

const secret = 'a secret of administrators';
const issuer = 'CoCo-Attestation-Service';
const administrator = { authorization: `Bearer ${secret}` };
const json = { 'content-type': 'application/json' };
const sample = { tee: 'sample', evidence: encode({ svn: '1', report_data: '' }) };
const minimal = JSON.stringify({ verification_requests: [sample], policy_ids: [] });
const open: string[] = [];
let folder: string;
let storage: Storage;
let service: AttestationService;
const fronts: HttpFront[] = [];

function encode(value: unknown): string {
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rest-front-'));
});
afterEach(async () => {
  for (const front of fronts.splice(0)) await front.close();
  await service?.close();
  await storage?.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A fresh service with its REST front. */
async function start(options: Partial<RestServerOptions> = {}): Promise<HttpFront> {
  open.push('');
  storage = await openStorage({ path: join(folder, `${open.length}`, 'db.sqlite') });
  service = await createAttestationService({ sample: true, snp: { sources: [] } }, { storage });
  return front(options);
}

async function front(options: Partial<RestServerOptions> = {}): Promise<HttpFront> {
  const listening = await serveRest(service, { address: '127.0.0.1:0', issuer, ...options });
  fronts.push(listening);
  return listening;
}

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

interface Tls {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
}

function ask(
  { port }: HttpFront,
  method: string,
  path: string,
  headers: Readonly<Record<string, string>> = {},
  body?: string | Buffer,
  tls?: Tls,
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, method, path, headers, agent: false as const };
    const request = tls === undefined ? plainRequest(options) : secureRequest({ ...options, ...tls });
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text });
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

interface Recorded {
  readonly label: string;
  readonly request: {
    readonly method: string;
    readonly target: string;
    readonly headers: readonly (readonly [string, string])[];
    readonly body_utf8?: string;
    readonly body_parts?: readonly { readonly utf8?: string; readonly repeat?: string; readonly count?: number }[];
  };
  readonly response: {
    readonly status: number;
    readonly headers: readonly (readonly [string, string])[];
    readonly body_utf8: string;
  };
  readonly token_decoded?: { readonly payload: { readonly submods: JsonObject } };
}

/** Where this front answers otherwise than the recorded one on purpose, and why. */
interface Difference {
  readonly why: string;
  readonly status?: number;
  /** What our body contains. */
  readonly body?: string;
}

const needsAdmin = 'attestation report evaluate';
const refusedValue: Difference = {
  why: 'the reason code stands where upstream has the text of its Rust error',
  body: '1: Verifier evaluate failed: EV_BINDING_MISMATCH',
};
const unset: Difference = { why: 'the reason code', body: `0: ${needsAdmin}\n1: POLICY_UNSET: there is no` };
const ownPolicies: Difference = { why: 'another set of built-in policies', body: '{"policy-id":"default_cpu"}' };
const engineText: Difference = { why: 'the reason code', body: '0: set policy\n1: POLICY_INVALID: ' };

const differences: Readonly<Record<string, Readonly<Record<string, Difference>>>> = {
  attestation: {
    'policy id unknown': unset,
    'raw runtime data, mismatch': refusedValue,
    'raw runtime data hashed (is not accepted)': refusedValue,
    'structured "sm3"': { why: 'no TEE hashes runtime data with SM3', body: 'Matching variant not found' },
    'structured mismatch': refusedValue,
    'structured: string': {
      why: 'runtime data is an object, as in every guest',
      status: 500,
      body: 'structured runtime data is not an object',
    },
    'init_data_toml bad': { why: 'a refusal with its reason', body: '1: Verifier evaluate failed: ' },
    'no requests': { why: 'the reason code', body: 'wrong number of evidences' },
    'tee nvidia': { why: 'known, and not configured', body: 'EV_TEE_UNSUPPORTED' },
    'tee tpm': { why: 'known, and not configured', body: 'EV_TEE_UNSUPPORTED' },
    'evidence not JSON': { why: 'the parser does not say where', body: '0: failed to parse evidence as JSON\n1: ' },
    'evidence without svn': { why: 'the reason code', body: '1: Verifier evaluate failed: EV_FORMAT' },
  },
  challenge: {
    tdx: { why: 'known, and not configured', body: '0: generate challenge\n1: EV_TEE_UNSUPPORTED' },
    'se (no SE files here)': { why: 'known, and not configured', body: 'EV_TEE_UNSUPPORTED' },
  },
  policy: {
    'list at start': ownPolicies,
    list: { why: 'another set of built-in policies', body: '{"policy-id":"mine_cpu"}' },
    'attest with policy mine_cpu': unset,
    'syntax error': engineText,
    'bad id': { why: 'the reason code', body: '0: set policy\n1: REQUEST_FORMAT: ' },
  },
  routes: {
    'GET /.well-known/openid-configuration': { why: 'upstream has none', status: 200, body: '"jwks_uri"' },
    'GET /.well-known/jwks.json': { why: 'its own key, with kid', body: '"kid"' },
    // The recorded server had the policy of the recording before.
    'with Origin, no CORS configured': { why: 'a fresh service', body: '.' },
  },
  cors: { 'no origin': ownPolicies },
};

/** The place in the text that serde tells is left out; names of members and types are compared. */
const comparable = (body: string): string => body.replace(/ at line \d+ column \d+$/, '');

describe('exchanges recorded with upstream’s RESTful-AS', () => {
  for (const name of ['attestation', 'challenge', 'policy', 'routes', 'cors']) {
    it(`${name}: same status, headers and body, beside what differs by intention`, async (context) => {
      const file = vectorPath('recorded', 'rest-as', `${name}.json`);
      if (!existsSync(file)) context.skip(`no recorded exchanges at ${file}`);
      const { exchanges } = JSON.parse(readFileSync(file, 'utf8')) as { exchanges: Recorded[] };
      const listening = await start({
        openAdministration: true,
        allowedOrigins: name === 'cors' ? ['http://localhost:3000'] : [],
      });
      for (const { label, request, response, token_decoded: token } of exchanges) {
        const difference = differences[name]?.[label];
        const headers = Object.fromEntries(
          request.headers.filter(([header]) => !/^(host|content-length)$/i.test(header)),
        );
        const parts = request.body_parts?.map(({ utf8, repeat = '', count = 0 }) => utf8 ?? repeat.repeat(count));
        const body = parts?.join('') ?? (request.body_utf8 === '' ? undefined : request.body_utf8);
        const got = await ask(listening, request.method, request.target, headers, body);
        const where = `${name}: ${label}: ${got.body.slice(0, 300)}`;
        expect(got.status, where).toBe(difference?.status ?? response.status);
        const recordedHeaders = Object.fromEntries(response.headers);
        for (const header of ['vary', 'allow', 'content-type', 'access-control-allow-origin'])
          if (difference?.status === undefined)
            expect(got.headers[header], `${where} ${header}`).toBe(recordedHeaders[header]);
        if (difference?.body !== undefined) expect(got.body, where).toContain(difference.body);
        else if (difference === undefined && token !== undefined) {
          const payload = JSON.parse(Buffer.from(got.body.split('.')[1] ?? '', 'base64url').toString());
          expect(JSON.stringify(payload.submods), where).toBe(JSON.stringify(token.payload.submods));
        } else if (difference === undefined) expect(comparable(got.body), where).toBe(comparable(response.body_utf8));
      }
      const labels = exchanges.map(({ label }) => label);
      expect(Object.keys(differences[name] ?? {}).filter((label) => !labels.includes(label))).toEqual([]);
    });
  }
});

describe('the REST front', () => {
  it('gives tokens that verify under the published keys, which the discovery document names', async () => {
    const listening = await start();
    const { body: token, headers } = await ask(
      listening,
      'POST',
      '/attestation',
      { ...json, 'x-correlation-id': 'c-7' },
      minimal,
    );
    expect(headers['x-correlation-id']).toBe('c-7');
    const origin = `http://127.0.0.1:${listening.port}`;
    const { body } = await ask(listening, 'GET', '/.well-known/openid-configuration');
    const document = JSON.parse(body) as { issuer: string; jwks_uri: string };
    expect(document).toMatchObject({ issuer, jwks_uri: `${origin}/.well-known/jwks.json` });
    const { payload, protectedHeader } = await jwtVerify(token, createRemoteJWKSet(new URL(document.jwks_uri)), {
      issuer: document.issuer,
      algorithms: ['ES256'],
    });
    expect(payload.jti).toBe('c-7');
    expect(protectedHeader.kid).toMatch(/^[\w-]{43}$/);
  });

  it('lets administrators only choose policies, read and set them', async () => {
    const listening = await start({ adminSecret: secret });
    const policy = encode('package policy\nimport rego.v1\ntrust_claims := {"hardware": 2}');
    const set = JSON.stringify({ policy_id: 'mine_cpu', policy });
    const chosen = JSON.stringify({ verification_requests: [sample], policy_ids: ['mine'] });
    for (const headers of [json, { ...json, authorization: `Bearer ${secret}x` }, { ...json, authorization: secret }]) {
      for (const [method, path, body] of [
        ['POST', '/policy', set],
        ['GET', '/policy', undefined],
        ['POST', '/attestation', chosen],
      ] as const) {
        const refused = await ask(listening, method, path, headers, body);
        expect([path, refused.status, refused.headers['sealpod-reason-code']]).toEqual([path, 401, 'ADMIN_TOKEN']);
      }
    }
    expect(await service.getPolicy('mine_cpu')).toBeUndefined();
    expect((await ask(listening, 'POST', '/policy', { ...json, ...administrator }, set)).status).toBe(200);
    expect((await ask(listening, 'GET', '/policy', administrator)).body).toContain('mine_cpu');
    expect((await ask(listening, 'POST', '/attestation', { ...json, ...administrator }, chosen)).status).toBe(200);
  });

  it('lets administrators only list and rotate the token keys; the old one stays published', async () => {
    const listening = await start({ adminSecret: secret });
    const kids = async (): Promise<unknown[]> =>
      JSON.parse((await ask(listening, 'GET', '/.well-known/jwks.json')).body).keys.map(
        (key: JsonObject) => key['kid'],
      );
    const before = await kids();
    for (const [method, path] of [
      ['GET', '/token-keys'],
      ['POST', '/token-keys/rotate'],
    ] as const) {
      const refused = await ask(listening, method, path, { authorization: `Bearer ${secret}x` });
      expect([refused.status, refused.headers['sealpod-reason-code']]).toEqual([401, 'ADMIN_TOKEN']);
    }
    expect(await kids()).toEqual(before);
    const rotated = await ask(listening, 'POST', '/token-keys/rotate', administrator);
    expect(JSON.parse(rotated.body)).toMatchObject({
      rotated: true,
      'token-keys': [{ kid: before[0], state: 'signing' }, { state: 'next' }],
    });
    expect(await kids()).toEqual([before[0], expect.any(String)]);
    const listed = await ask(listening, 'GET', '/token-keys', administrator);
    expect(JSON.parse(listed.body)['token-keys']).toEqual(JSON.parse(rotated.body)['token-keys']);
    expect((await ask(listening, 'POST', '/token-keys', administrator)).status).toBe(405);
  });

  it('tells expected and actual to administrators only', async () => {
    const listening = await start({ adminSecret: secret });
    const bad = {
      ...sample,
      evidence: encode({ svn: '1', report_data: 'AAAA' }),
      runtime_data: { raw: encode('other') },
    };
    const body = JSON.stringify({ verification_requests: [bad], policy_ids: [] });
    const guest = await ask(listening, 'POST', '/attestation', json, body);
    expect(guest.headers['sealpod-reason-code']).toBe('EV_BINDING_MISMATCH');
    expect(guest.body).not.toContain('000000');
    const told = await ask(listening, 'POST', '/attestation', { ...json, ...administrator }, body);
    expect(told.body).toContain(`expected ${Buffer.from('other').toString('hex')}, actual 000000`);
  });

  it('limits bodies as configured, refuses encoded ones and duplicate members', async () => {
    const listening = await start({ maxBodyBytes: 4096 });
    const padded = `${minimal.slice(0, -1)},"pad":"${'a'.repeat(4096)}"}`;
    expect((await ask(listening, 'POST', '/attestation', json, padded)).status).toBe(413);
    expect(
      (await ask(listening, 'POST', '/attestation', { ...json, 'transfer-encoding': 'chunked' }, padded)).status,
    ).toBe(413);
    expect(
      (await ask(listening, 'POST', '/attestation', { ...json, 'content-encoding': 'gzip' }, minimal)).status,
    ).toBe(415);
    const twice = `${minimal.slice(0, -1)},"policy_ids":["x"]}`;
    expect(await ask(listening, 'POST', '/attestation', json, twice)).toMatchObject({
      status: 400,
      body: expect.stringContaining('duplicate member'),
    });
    expect((await ask(listening, 'POST', '/attestation', json, minimal)).status).toBe(200);
  });

  it('listens beyond loopback with TLS only, and never with open administration', async () => {
    await start();
    await expect(front({ address: '0.0.0.0:0' })).rejects.toMatchObject({ code: 'USAGE' });
    const { certificate, key } = await selfSigned('front');
    const tls = { certificate, key };
    await expect(front({ address: '0.0.0.0:0', tls, openAdministration: true })).rejects.toMatchObject({
      code: 'USAGE',
    });
    await expect(front({ adminSecret: 'short' })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(front({ address: 'nonsense' })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('with client authorities serves callers with a certificate, who are administrators, and nobody else', async () => {
    await start();
    const server = await selfSigned('front');
    const client = await selfSigned('kbs');
    const stranger = await selfSigned('stranger');
    const tls = { certificate: server.certificate, key: server.key, clientAuthorities: client.certificate };
    const listening = await front({ tls });
    const trust = { ca: server.certificate };
    const with_ = (own: { certificate: string; key: string }): Tls => ({
      ...trust,
      cert: own.certificate,
      key: own.key,
    });
    expect((await ask(listening, 'GET', '/policy', {}, undefined, with_(client))).status).toBe(200);
    await expect(ask(listening, 'GET', '/healthz', {}, undefined, trust)).rejects.toThrow();
    await expect(ask(listening, 'GET', '/healthz', {}, undefined, with_(stranger))).rejects.toThrow();
    await expect(
      ask(listening, 'GET', '/healthz', {}, undefined, { ...with_(client), ca: stranger.certificate }),
    ).rejects.toThrow();
  });
});

async function selfSigned(name: string): Promise<{ certificate: string; key: string }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3600_000),
    extensions: [new SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }])],
  });
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return { certificate: certificate.toString('pem'), key: PemConverter.encode(pkcs8, 'PRIVATE KEY') };
}
