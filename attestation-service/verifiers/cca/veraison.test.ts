import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { failures } from '@sealpod/protocol/verdict';
import { CompactSign } from 'jose';
import { afterEach, describe, expect, it } from 'vitest';
import { veraisonService } from '../../endorsements/veraison/client.ts';
import { ccaVerifier } from './index.ts';
import { ccaEvidence, TestPlatform } from './testing/mint.ts';
import { readResultKeys } from './veraison.ts';

const platform = new TestPlatform();
const reportData = randomBytes(48);
const nonce = regularise(reportData, 64);
const token = platform.token(nonce, Buffer.alloc(64));
const key = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const now = new Date('2026-06-01T00:00:00Z');

/** How the test's service behaves; each a fault of its own. */
interface Behaviour {
  readonly ear?: (claims: Record<string, JsonValue>) => unknown;
  readonly submods?: (submods: Record<string, Record<string, JsonValue>>) => unknown;
  readonly signer?: KeyObject;
  readonly processing?: number;
  readonly location?: string;
  readonly nonce?: string;
  readonly evidenceStatus?: number;
  readonly session?: string;
  readonly discovery?: JsonObject;
  readonly padded?: boolean;
}

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** A service that answers as Veraison does, and what it was asked. */
async function service(behaviour: Behaviour = {}): Promise<{ url: string; asked: string[]; posted: Buffer[] }> {
  const asked: string[] = [];
  const posted: Buffer[] = [];
  let polls = 0;
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '', 'http://service');
    asked.push(`${request.method} ${url.pathname}`);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const send = (status: number, body: JsonValue, headers: Record<string, string> = {}): void => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
    };
    if (url.pathname === '/.well-known/veraison/verification') {
      const published = key.publicKey.export({ format: 'jwk' }) as JsonObject;
      const endpoints = { newChallengeResponseSession: '/challenge-response/v1/newSession' };
      send(200, behaviour.discovery ?? { 'ear-verification-key': published, 'api-endpoints': endpoints });
    } else if (url.pathname.endsWith('/newSession')) {
      const text = url.searchParams.get('nonce') ?? '';
      if (behaviour.padded === true && text.length % 4 !== 0) return send(400, { detail: 'nonce' });
      const accept = [
        'application/psa-attestation-token',
        'application/eat-collection; profile=http://arm.com/CCA-SSD/1.0.0',
      ];
      send(
        201,
        { nonce: behaviour.nonce ?? text, accept, status: 'waiting' },
        { location: behaviour.location ?? 'session/1' },
      );
    } else if (request.method === 'DELETE') {
      response.writeHead(204).end();
    } else {
      if (request.method === 'POST') posted.push(Buffer.concat(chunks));
      if (request.method === 'POST') asked.push(String(request.headers['content-type']));
      if (behaviour.evidenceStatus !== undefined) return send(behaviour.evidenceStatus, { detail: 'no' });
      if (behaviour.session !== undefined) return send(200, { status: behaviour.session });
      if (polls < (behaviour.processing ?? 0)) {
        polls += 1;
        return send(202, { status: 'processing' });
      }
      send(200, { state: 'complete', result: await result(behaviour) });
    }
  };
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, posted };
}

async function result({ ear, submods, signer = key.privateKey }: Behaviour): Promise<string> {
  const vector = { 'instance-identity': 2, hardware: 2, executables: 2, configuration: 2 };
  const parts: Record<string, Record<string, JsonValue>> = {
    CCA_SSD_PLATFORM: {
      'ear.status': 'affirming',
      'ear.trustworthiness-vector': vector,
      'ear.veraison.annotated-evidence': {
        'cca-platform-instance-id': platform.instanceId.toString('base64'),
        'cca-platform-implementation-id': platform.implementationId.toString('base64'),
      },
    },
    CCA_REALM: {
      'ear.status': 'warning',
      'ear.trustworthiness-vector': { 'instance-identity': 2, executables: 33 },
      'ear.veraison.annotated-evidence': {
        'cca-realm-initial-measurement': platform.initialMeasurement.toString('base64'),
        'cca-realm-personalization-value': Buffer.alloc(64).toString('base64'),
      },
    },
  };
  submods?.(parts);
  const claims: Record<string, JsonValue> = {
    eat_profile: 'tag:github.com,2023:veraison/ear',
    eat_nonce: nonce.toString('base64url'),
    iat: 1,
    submods: parts,
  };
  ear?.(claims);
  return new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader({ alg: 'ES256' }).sign(signer);
}

const fast = { retries: 1, pauseMs: 1, pollPauseMs: 1, polls: 4, timeoutMs: 500 };

async function refusals(
  behaviour: Behaviour = {},
  { keys, evidence = token }: { keys?: KeyObject[]; evidence?: Buffer } = {},
): Promise<string[]> {
  const { url } = await service(behaviour);
  const verifier = ccaVerifier(
    { allowNonCcaDebug: false },
    { service: veraisonService(url, fast), ...(keys === undefined ? {} : { keys }) },
  );
  const { verdict } = await verifier.verify(ccaEvidence(evidence), { reportData, trustedAttestationKeys: [], now });
  return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
}

describe('a Veraison service', () => {
  it('appraises a token in a session, with the nonce of this session, and its result is verified', async () => {
    const { url, asked, posted } = await service({ processing: 2 });
    const verifier = ccaVerifier({ allowNonCcaDebug: false }, { service: veraisonService(url, fast) });
    const { verdict, claims } = await verifier.verify(ccaEvidence(token), {
      reportData,
      trustedAttestationKeys: [],
      now,
    });
    expect(failures(verdict)).toEqual([]);
    expect(claims['sealpod']).toMatchObject({ realm_status: 'warning', platform_trust_vector: { hardware: 2 } });
    expect(posted).toEqual([token]);
    expect(asked).toEqual([
      'GET /.well-known/veraison/verification',
      'POST /challenge-response/v1/newSession',
      'POST /challenge-response/v1/session/1',
      'application/eat-collection; profile=http://arm.com/CCA-SSD/1.0.0',
      'GET /challenge-response/v1/session/1',
      'GET /challenge-response/v1/session/1',
      'DELETE /challenge-response/v1/session/1',
    ]);
  });

  it('may want the nonce with padding, and its key may be pinned, alone or in a set', async () => {
    expect(await refusals({ padded: true })).toEqual([]);
    const jwk = key.publicKey.export({ format: 'jwk' }) as JsonObject;
    const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey;
    expect(await refusals({}, { keys: readResultKeys(jwk) })).toEqual([]);
    const set = { keys: [other.export({ format: 'jwk' }) as JsonObject, jwk] };
    expect(await refusals({}, { keys: readResultKeys(set) })).toEqual([]);
    expect(await refusals({}, { keys: [other] })).toEqual(['verification service: result signature: EV_SIGNATURE']);
  });

  it('is not asked about what does not hold by itself', async () => {
    const { url, asked } = await service();
    const verifier = ccaVerifier({ allowNonCcaDebug: false }, { service: veraisonService(url, fast) });
    const { verdict } = await verifier.verify(ccaEvidence(platform.token(randomBytes(64), Buffer.alloc(64))), {
      reportData,
      trustedAttestationKeys: [],
      now,
    });
    expect(failures(verdict).map(({ code }) => code)).toEqual(['EV_BINDING_MISMATCH']);
    expect(asked).toEqual([]);
  });

  const named = 'verification service';
  it.each<[string, Behaviour, string[]]>([
    [
      'signed by another',
      { signer: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey },
      [`${named}: result signature: EV_SIGNATURE`],
    ],
    [
      'about another nonce',
      { ear: (ear) => Object.assign(ear, { eat_nonce: 'AAAA' }) },
      [`${named}: nonce: EV_NONCE_MISMATCH`],
    ],
    ['without a nonce', { ear: (ear) => Reflect.deleteProperty(ear, 'eat_nonce') }, [`${named}: EV_FORMAT`]],
    [
      'that has expired',
      { ear: (ear) => Object.assign(ear, { exp: 1 }) },
      [`${named}: age of the result: EV_COLLATERAL_EXPIRED`],
    ],
    ['without parts', { ear: (ear) => Object.assign(ear, { submods: {} }) }, [`${named}: EV_FORMAT`]],
    [
      'about another platform',
      {
        submods: (parts) =>
          Object.assign(parts['CCA_SSD_PLATFORM'] ?? {}, {
            'ear.veraison.annotated-evidence': { 'cca-platform-instance-id': 'AAAA' },
          }),
      },
      [`${named}: cca-platform-instance-id: EV_PART_MIX`, `${named}: cca-platform-implementation-id: EV_PART_MIX`],
    ],
    [
      'that contraindicates the platform',
      { submods: (parts) => Object.assign(parts['CCA_SSD_PLATFORM'] ?? {}, { 'ear.status': 'contraindicated' }) },
      [`${named}: platform: EV_REFUSED`],
    ],
    [
      'that does not affirm the realm’s key',
      {
        submods: (parts) =>
          Object.assign(parts['CCA_REALM'] ?? {}, { 'ear.trustworthiness-vector': { 'instance-identity': 99 } }),
      },
      [`${named}: realm instance: EV_REFUSED`],
    ],
  ])('with a result %s is refused', async (_, behaviour, expected) => {
    expect(await refusals(behaviour)).toEqual(expected);
  });

  it.each<[string, Behaviour, string]>([
    ['fails', { session: 'failed' }, 'EV_REFUSED'],
    ['never ends', { session: 'processing' }, 'EV_COLLATERAL_UNAVAILABLE'],
    ['refuses', { evidenceStatus: 400 }, 'EV_REFUSED'],
    ['is broken', { evidenceStatus: 500 }, 'EV_COLLATERAL_UNAVAILABLE'],
    ['is overloaded', { evidenceStatus: 429 }, 'EV_COLLATERAL_UNAVAILABLE'],
    ['points elsewhere', { location: 'https://elsewhere.example/session/1' }, 'EV_COLLATERAL_UNAVAILABLE'],
    ['changes the nonce', { nonce: 'AAAA' }, 'EV_NONCE_MISMATCH'],
    ['publishes no key', { discovery: {} }, 'EV_COLLATERAL_UNAVAILABLE'],
    [
      'names another host for sessions',
      { discovery: { 'api-endpoints': { newChallengeResponseSession: '//elsewhere.example/x' } } },
      'EV_COLLATERAL_UNAVAILABLE',
    ],
  ])('that %s makes a refusal', async (_, behaviour, code) => {
    expect(await refusals(behaviour)).toEqual([`${named}: ${code}`]);
  });

  it('that is away makes a refusal within its time', async () => {
    const verifier = ccaVerifier({ allowNonCcaDebug: false }, { service: veraisonService('http://127.0.0.1:1', fast) });
    const { verdict } = await verifier.verify(ccaEvidence(token), { reportData, trustedAttestationKeys: [], now });
    expect(failures(verdict).map(({ code }) => code)).toEqual(['EV_COLLATERAL_UNAVAILABLE']);
  });
});
