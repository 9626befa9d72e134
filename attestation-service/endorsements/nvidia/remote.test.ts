import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { failures } from '@sealpod/protocol/verdict';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { remoteNvidiaVerifier } from '../../verifiers/nvidia/index.ts';
import { remoteService } from './remote.ts';

const now = new Date();
const reportData = Buffer.alloc(48, 7);
const nonce = reportData.subarray(0, 32).toString('hex');
const expectations = { reportData, trustedAttestationKeys: [], now };
let server: Server;
let url = '';
let keys: Awaited<ReturnType<typeof generateKeyPair>>;
let other: typeof keys;
const asked: { path: string; body: JsonObject }[] = [];
/** What the service answers; tests change it. */
let behaviour: {
  status: number;
  delayMs: number;
  key?: typeof keys;
  claims: JsonObject;
  lifetime: string;
  devices?: number;
  timeoutMs?: number;
};

beforeAll(async () => {
  keys = await generateKeyPair('ES384', { extractable: true });
  other = await generateKeyPair('ES384', { extractable: true });
  const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(keys.publicKey)), kid: 'k', alg: 'ES384' }] });
  server = createServer(async (request, response) => {
    if (request.url === '/.well-known/jwks.json') return response.end(jwks);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = JSON.parse(Buffer.concat(chunks).toString()) as JsonObject & { evidence_list: JsonObject[] };
    asked.push({ path: request.url ?? '', body });
    await new Promise((resolve) => setTimeout(resolve, behaviour.delayMs));
    const sign = (claims: JsonObject): Promise<string> =>
      new SignJWT({ ...claims, eat_nonce: nonce, ...behaviour.claims })
        .setProtectedHeader({ alg: 'ES384', kid: 'k' })
        .setIssuer('https://nras')
        .setIssuedAt()
        .setExpirationTime(behaviour.lifetime)
        .sign((behaviour.key ?? keys).privateKey);
    const kind = request.url?.endsWith('/switch') === true ? 'switch' : 'gpu';
    const count = behaviour.devices ?? body.evidence_list.length;
    const devices: Record<string, string> = {};
    // The characters ~ and ÿ make base64url of - and _, which the wrong alphabet refuses.
    for (let index = 0; index < count; index += 1)
      devices[`${kind.toUpperCase()}-${index}`] = await sign({
        [`x-nvidia-${kind}-attestation-report-nonce-match`]: true,
        ueid: `${index}`,
        hwmodel: '~~~ÿÿÿ>>>???',
      });
    response.statusCode = behaviour.status;
    return response.end(JSON.stringify([['JWT', await sign({ 'x-nvidia-overall-att-result': true })], devices]));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => new Promise((resolve) => server.close(resolve)));
beforeEach(() => {
  asked.length = 0;
  behaviour = { status: 200, delayMs: 0, claims: {}, lifetime: '5m' };
});

const device = (arch = 'HOPPER'): JsonObject => ({ arch, evidence: '00', certificate: 'QQ==' });
const verify = (...devices: JsonObject[]) =>
  remoteNvidiaVerifier(remoteService({ url: `${url}/v4/attest`, timeoutMs: behaviour.timeoutMs ?? 10_000 })).verify(
    { device_evidence_list: devices },
    expectations,
  );
async function refusals(...devices: JsonObject[]): Promise<string[]> {
  const { verdict } = await verify(...devices);
  return failures(verdict).map(({ code }) => code);
}

describe("NVIDIA's remote attestation service", () => {
  it('is asked once for each architecture, and its tokens become claims whatever their characters (finding 16)', async () => {
    const { verdict, submodules } = await verify(device(), device('LS10'), device());
    expect(failures(verdict)).toEqual([]);
    expect(asked.map(({ path }) => path).sort()).toEqual(['/v4/attest/gpu', '/v4/attest/switch']);
    expect(asked.find(({ path }) => path.endsWith('gpu'))?.body).toEqual({
      nonce,
      arch: 'HOPPER',
      claims_version: '3.0',
      evidence_list: [
        { evidence: 'AA==', certificate: 'QQ==' },
        { evidence: 'AA==', certificate: 'QQ==' },
      ],
    });
    expect(submodules?.map(({ teeClass, claims }) => [teeClass, claims['ueid'], claims['hwmodel']])).toEqual([
      ['gpu', '0', '~~~ÿÿÿ>>>???'],
      ['switch', '0', '~~~ÿÿÿ>>>???'],
      ['gpu', '1', '~~~ÿÿÿ>>>???'],
    ]);
    expect(submodules?.[0]?.claims['x-nvidia-overall-att-result']).toBe(true);
  });

  const faults: [string, () => Partial<typeof behaviour>, string][] = [
    ['that is away', () => ({ status: 503 }), 'EV_COLLATERAL_UNAVAILABLE'],
    ['that has too much to do', () => ({ status: 429 }), 'EV_COLLATERAL_UNAVAILABLE'],
    ['that refuses', () => ({ status: 400 }), 'EV_REFUSED'],
    ['that is slow', () => ({ delayMs: 1500, timeoutMs: 200 }), 'EV_COLLATERAL_UNAVAILABLE'],
    ['that signs with another key', () => ({ key: other }), 'EV_SIGNATURE'],
    ['that answers another nonce', () => ({ claims: { eat_nonce: '00' } }), 'EV_BINDING_MISMATCH'],
    [
      'that says that the nonce differs',
      () => ({ claims: { 'x-nvidia-gpu-attestation-report-nonce-match': false } }),
      'EV_BINDING_MISMATCH',
    ],
    ['whose tokens have expired', () => ({ lifetime: '-5m' }), 'EV_COLLATERAL_EXPIRED'],
    ['that tells of more devices', () => ({ devices: 2 }), 'EV_REFUSED'],
    ['that tells of no device', () => ({ devices: 0 }), 'EV_REFUSED'],
  ];
  it.each(faults)('%s makes a refusal', async (_, fault, expected) => {
    behaviour = { ...behaviour, ...fault() };
    expect(await refusals(device())).toEqual([expected]);
  });

  it('is not asked without runtime data', async () => {
    const verifier = remoteNvidiaVerifier(remoteService({ url: `${url}/v4/attest` }));
    const { reportData: _, ...unbound } = expectations;
    const { verdict } = await verifier.verify({ device_evidence_list: [device()] }, unbound);
    expect(failures(verdict).map(({ code }) => code)).toEqual(['EV_BINDING_MISMATCH']);
    expect(asked).toEqual([]);
  });

  it('that nobody answers for makes a refusal', async () => {
    const service = remoteService({ url: 'http://127.0.0.1:1/v4/attest' });
    await expect(service.attest('HOPPER', nonce, [], now)).rejects.toThrow(SealpodError);
  });
});
