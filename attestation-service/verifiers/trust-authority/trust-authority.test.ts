import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { JsonObject } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { failures } from '@sealpod/protocol/verdict';
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { readTrustAuthorityConfig, type TrustAuthorityConfig } from './config.ts';
import { trustAuthorityVerifiers } from './index.ts';

type Keys = Awaited<ReturnType<typeof generateKeyPair>>;

const now = new Date('2026-06-01T00:00:00Z');
const reportData = Buffer.alloc(48, 7);
const initDataDigest = Buffer.alloc(32, 9);
const expectations = { reportData, initDataDigest, trustedAttestationKeys: [], now };
const evidence = {
  quote: Buffer.from('a quote').toString('base64'),
  cc_eventlog: Buffer.from('a log').toString('base64'),
};
const honest = {
  tdx_report_data: regularise(reportData, 64).toString('hex'),
  tdx_mrconfigid: regularise(initDataDigest, 48).toString('hex'),
  tdx_mrtd: 'aa'.repeat(48),
  attester_type: 'TDX',
  attester_tcb_status: 'UpToDate',
  policy_ids_matched: [{ id: 'p-1', version: 'v1' }],
};

let server: Server;
let url: string;
let keys: Keys;
let next: Keys;
let published: readonly JWK[];
let claims: JsonObject;
let keysAsked = 0;
/** What the service does with the next question; by default it attests. */
let behave: (() => Promise<{ status: number; body: string }>) | undefined;
let asked: { headers: IncomingHttpHeaders; body: JsonObject }[] = [];

beforeAll(async () => {
  keys = await generateKeyPair('PS384', { extractable: true });
  next = await generateKeyPair('PS384', { extractable: true });
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', async () => {
      if (request.url === '/certs') {
        keysAsked += 1;
        response.end(JSON.stringify({ keys: published }));
        return;
      }
      expect([request.method, request.url]).toEqual(['POST', '/appraisal/v2/attest']);
      asked.push({ headers: request.headers, body: JSON.parse(Buffer.concat(chunks).toString()) as JsonObject });
      const { status, body } = (await behave?.()) ?? { status: 200, body: JSON.stringify({ token: await token() }) };
      response.writeHead(status).end(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => server.close());
beforeEach(async () => {
  published = [{ ...(await exportJWK(keys.publicKey)), kid: 'k-1' }];
  claims = honest;
  behave = undefined;
  asked = [];
  keysAsked = 0;
});

function token(with_: Keys = keys, kid = 'k-1', at = now, alg = 'PS384'): Promise<string> {
  const issued = Math.floor(at.getTime() / 1000);
  return new SignJWT({ ...claims })
    .setProtectedHeader({ alg, kid })
    .setIssuedAt(issued)
    .setExpirationTime(issued + 300)
    .sign(with_.privateKey);
}
const answer = async (text: Promise<string>) => ({ status: 200, body: JSON.stringify({ token: await text }) });

function verifier(config: Partial<TrustAuthorityConfig> = {}) {
  const [first] = trustAuthorityVerifiers({
    url,
    apiKey: 'the key',
    tees: ['tdx'],
    keys: { url: `${url}/certs` },
    timeoutMs: 500,
    ...config,
  });
  if (first === undefined) throw new Error('no verifier');
  return first;
}
async function refusals(by = verifier(), value: JsonObject = evidence): Promise<string[]> {
  const { verdict } = await by.verify(value, expectations);
  return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
}

describe('Intel Trust Authority', () => {
  it('is sent quote, log and policies with the key of the account, and its claims become ours', async () => {
    const { verdict, claims: got } = await verifier({ policyIds: ['p-1'] }).verify(evidence, expectations);
    expect(failures(verdict)).toEqual([]);
    const [{ headers, body } = { headers: {}, body: {} }] = asked;
    expect(headers['x-api-key']).toBe('the key');
    expect(body).toEqual({
      tdx: { quote: evidence.quote, event_log: evidence.cc_eventlog },
      policy_ids: ['p-1'],
      token_signing_alg: 'PS384',
    });
    expect(got).toEqual({
      ...honest,
      report_data: honest.tdx_report_data,
      init_data: honest.tdx_mrconfigid,
      sealpod: { verified_by: 'Intel Trust Authority' },
    });
  });

  it.each([
    ['another session', { tdx_report_data: '00'.repeat(64) }, 'report data: EV_BINDING_MISMATCH'],
    ['no report data', { tdx_report_data: undefined }, 'report data: EV_BINDING_MISMATCH'],
    ['other initdata', { tdx_mrconfigid: '00'.repeat(48) }, 'initdata: INITDATA_DIGEST'],
    ['a policy that does not match', { policy_ids_unmatched: [{ id: 'p-2' }] }, 'policies of the account: POLICY_DENY'],
    ['a policy that was not looked at', { policy_ids_matched: [] }, 'policies of the account: POLICY_DENY'],
  ])('refuses a token of %s', async (_what, change, expected) => {
    claims = { ...honest, ...change } as JsonObject;
    expect(await refusals(verifier({ policyIds: ['p-1'] }))).toEqual([expected]);
  });

  it('accepts unmatched policies by choice only', async () => {
    claims = { ...honest, policy_ids_unmatched: [{ id: 'p-2' }] };
    expect(await refusals()).toEqual(['policies of the account: POLICY_DENY']);
    expect(await refusals(verifier({ allowUnmatchedPolicy: true }))).toEqual([]);
  });

  it('refuses tokens of other keys, of other dates, without signature, by other algorithms', async () => {
    const forged = 'verification service: EV_SIGNATURE';
    const day = 86_400_000;
    const unsigned = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.`;
    const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
    for (const forge of [
      () => token(next),
      () => token(keys, 'k-1', new Date(now.getTime() - day)),
      () => Promise.resolve(unsigned),
      () => token({ privateKey, publicKey }, 'k-1', now, 'ES256'),
      async () => `${(await token()).slice(0, -6)}AAAAAA`,
    ]) {
      behave = () => answer(forge());
      expect(await refusals()).toEqual([forged]);
    }
  });

  it('follows its keys: one that is not known is looked for, not more than twice a minute', async () => {
    const by = verifier();
    expect(await refusals(by)).toEqual([]);
    expect(await refusals(by)).toEqual([]);
    expect(keysAsked).toBe(1);
    behave = () => answer(token(next, 'k-2'));
    published = [...published, { ...(await exportJWK(next.publicKey)), kid: 'k-2' }];
    const later = { ...expectations, now: new Date(now.getTime() + 31_000) };
    expect(failures((await by.verify(evidence, later)).verdict)).toEqual([]);
    expect(keysAsked).toBe(2);
    behave = () => answer(token(next, 'k-3'));
    expect(await refusals(by)).toEqual(['verification service: EV_SIGNATURE']);
    expect(keysAsked).toBeLessThanOrEqual(3);
  });

  it('is refused, never thrown, where it is away, slow, overloaded, or answers what is no token', async () => {
    const away = ['verification service: EV_COLLATERAL_UNAVAILABLE'];
    expect(await refusals(verifier({ url: 'http://127.0.0.1:1' }))).toEqual(away);
    behave = () => new Promise(() => undefined);
    expect(await refusals(verifier({ timeoutMs: 50 }))).toEqual(away);
    for (const [status, body] of [
      [429, ''],
      [401, '{}'],
      [500, '{}'],
      [200, 'x'],
      [200, '{"token":1}'],
      [200, 'y'.repeat(2 * 1024 * 1024)],
    ] as const) {
      behave = async () => ({ status, body });
      expect([status, ...(await refusals())]).toEqual([status, ...away]);
    }
    behave = async () => ({ status: 400, body: '{"error":"quote is invalid"}' });
    expect(await refusals()).toEqual(['verification service: EV_REFUSED']);
  }, 30_000);

  it('is configured with a file that holds the key, and HTTPS beyond loopback', () => {
    const read = (path: string): string => (path === 'key' ? ' secret\n' : '{"keys":[]}');
    const base = {
      url: 'https://api.trustauthority.intel.com/',
      apiKeyFile: 'key',
      tees: ['tdx', 'sgx'],
      certsFile: 'certs',
    };
    expect(readTrustAuthorityConfig(base, read)).toMatchObject({
      url: 'https://api.trustauthority.intel.com',
      apiKey: 'secret',
      keys: { text: '{"keys":[]}' },
    });
    for (const wrong of [
      { url: 'http://api.trustauthority.intel.com' },
      { url: 'x' },
      { tees: ['snp'] },
      { certsFile: undefined },
      { more: 1 },
    ]) {
      const { certsFile, ...rest } = { ...base, ...wrong };
      const config = certsFile === undefined ? rest : { ...rest, certsFile };
      expect(() => readTrustAuthorityConfig(config as JsonObject, read)).toThrow(
        expect.objectContaining({ code: 'USAGE' }),
      );
    }
  });
});
