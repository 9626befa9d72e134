import { join } from 'node:path';
import { createRegoEngine } from '@sealpod/rego';
import { openStorage } from '@sealpod/storage';
import { afterAll, describe, expect, it } from 'vitest';
import { differences } from '../testing/differences.ts';
import { startTestKbs, type TestKbs } from '../testing/kbs.ts';
import {
  type RecordedExchange,
  type Recording,
  type Replayed,
  readRecording,
  recordingPath,
  replay,
} from '../testing/recordings.ts';
import { createSession } from './sessions.ts';

const recordings = [
  'rcar/raw-auth',
  'rcar/raw-attest',
  'rcar/raw-get-resource',
  'rcar/raw-token',
  'rcar/raw-routes',
  'rcar/raw-policy-data',
  'rcar/raw-policies',
  'rcar/raw-policies-padding',
  'rcar/raw-reference-values',
  'rcar/raw-post-delete-resource',
  'rcar/raw-session-expired',
  'rcar/cli-get-resource-p256',
  'rcar/cli-get-resource-p521',
  'rcar/cli-get-resource-rsa-pkcs1',
  'rcar/cli-set-resource',
  'rcar/cli-set-resource-policy',
  'rcar/cli-delete-resource',
  'rcar/cli-reference-values',
  'rcar/cli-attestation-policy',
  'rcar/cli-get-resource-missing',
  'rcar/cli-get-resource-generated-key',
  'rcar/cli-affirming',
  'rcar/raw-keepalive',
];

const allowAll = 'package policy\nallow := true';
const rego = createRegoEngine();
afterAll(() => rego.close());

/** What of an answer is compared: random values by their kind, JSON with its members in order. */
function shapeOf(answer: RecordedExchange['response'] | Replayed) {
  const { status, headers, body } = answer;
  // A text that a guest is told ends where its reasons begin.
  return {
    status,
    type: headers['content-type'],
    cookie: headers['set-cookie'] !== undefined,
    allow: headers['allow'],
    body: kindOf(body),
  };
}

function kindOf(body: string): string {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return body;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return JSON.stringify(value);
  const members = value as Record<string, unknown>;
  if ('detail' in members)
    return `${members['type']}: ${String(members['detail'])
      .split('\n', 1)[0]
      ?.replace(/[:\s]+$/, '')}`;
  if ('nonce' in members)
    return `nonce of ${String(members['nonce']).length}, extra-params ${JSON.stringify(members['extra-params'])}`;
  if ('ciphertext' in members) return `JWE of ${Object.keys(members).toSorted().join()}`;
  if ('token' in members) return 'token';
  return JSON.stringify(Object.fromEntries(Object.entries(members).toSorted()));
}

/** Keys that recorded tokens were signed with by the recorded attestation service. */
function recordedKeys({ exchanges }: Recording) {
  return exchanges.flatMap(({ response }) => {
    const token = /^\{"token":"([^"]+)"\}$/.exec(response.body)?.[1];
    if (token === undefined) return [];
    return [JSON.parse(Buffer.from(token.split('.', 1)[0] ?? '', 'base64url').toString()).jwk];
  });
}

/** Puts a session into the storage as if this key broker had made the recorded challenge. */
async function adoptSession(kbs: TestKbs, { request, response }: RecordedExchange, now: number): Promise<void> {
  const id = /kbs-session-id=([0-9a-f]{32})/.exec(response.headers['set-cookie'] ?? '')?.[1];
  if (id === undefined || !request.target.startsWith('/kbs/v0/auth')) return;
  const { tee } = JSON.parse(request.body?.toString('utf8') ?? '{}');
  const { nonce } = JSON.parse(response.body);
  const storage = await openStorage({ path: join(kbs.directory, 'data', 'kbs.db'), sweepIntervalMs: 0 });
  const session = { state: 'challenged', tee, nonce, correlationId: id, expiresAt: now + 300_000 } as const;
  await storage.transaction((transaction) => createSession(transaction, id, session));
  await storage.close();
}

/** The recorded server let every administrator in; ours gets a token in the recorded request's place. */
function isForAdministrators({ method, target }: RecordedExchange['request']): boolean {
  if (/^\/kbs\/v0\/(resource-policy|attestation-policy|reference-value)/.test(target)) return true;
  return /^\/kbs\/v0\/resource/.test(target) && (method === 'POST' || method === 'DELETE');
}

async function prepare(name: string, recording: Recording): Promise<TestKbs> {
  const kbs = await startTestKbs({}, { now: () => recording.recordedAt * 1000 });
  kbs.attestation.otherKeys = recordedKeys(recording);
  kbs.attestation.check = (policy) => rego.check(policy);
  if (name === 'rcar/raw-post-delete-resource' || name === 'rcar/raw-reference-values') return kbs;
  for (const tag of ['1', 'enc-1_2.txt', 'bin', 'empty']) {
    await kbs.admin(`/kbs/v0/resource/default/key/${tag}`, { method: 'POST', body: 'x' });
  }
  await kbs.admin('/admin/v1/policies/resource/resource-policy', { method: 'PUT', body: allowAll });
  return kbs;
}

describe.each(recordings)('recorded exchanges of %s', (name) => {
  it('are answered as upstream, but for the differences that are listed', async (context) => {
    const recording = readRecording(name);
    if (recording === undefined) return context.skip(`no recorded exchanges at ${recordingPath(name)}`);
    const kbs = await prepare(name, recording);
    const unmet: unknown[] = [];
    const met = new Set<string>();
    try {
      for (const exchange of recording.exchanges) {
        const { label, request, response } = exchange;
        await adoptSession(kbs, exchange, recording.recordedAt * 1000);
        const difference = differences[name]?.[label];
        if (difference !== undefined) met.add(label);
        if (difference?.skip === true) continue;
        const authorization = isForAdministrators(request) ? { authorization: `Bearer ${await kbs.token()}` } : {};
        const ours = shapeOf(await replay(kbs.address, request, authorization));
        const theirs = shapeOf(response);
        const { status = theirs.status, body } = difference ?? {};
        const expected =
          difference === undefined
            ? theirs
            : { ...ours, status, ...(body === undefined ? {} : { body: expect.stringContaining(body) }) };
        if (difference !== undefined && JSON.stringify(ours) === JSON.stringify(theirs))
          unmet.push({ label, noDifference: true });
        try {
          expect(ours).toEqual(expected);
        } catch {
          unmet.push({
            label,
            target: `${request.method} ${request.target.slice(0, 80)}`,
            ours,
            expected: difference ?? theirs,
          });
        }
      }
    } finally {
      await kbs.remove();
    }
    expect(unmet).toEqual([]);
    expect([...met].toSorted()).toEqual(Object.keys(differences[name] ?? {}).toSorted());
    expect(recording.exchanges.length).toBeGreaterThan(1);
  });
});
