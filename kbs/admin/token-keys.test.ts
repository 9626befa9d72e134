import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AdminRole, signAdminToken } from '@sealpod/kbs-client/token';
import { decodeProtectedHeader } from 'jose';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseKbsConfig } from '../config.ts';
import { createKbs, type Kbs } from '../kbs.ts';
import { attest, authenticate, call, type Guest, opened, type Reply } from '../testing/client.ts';
import { startTestKbs } from '../testing/kbs.ts';

const minute = 60_000;
const root = '/admin/v1/token-keys';
const { publicKey, privateKey } = generateKeyPairSync('ed25519');
let directory: string;
let kbs: Kbs;
/** Milliseconds since the epoch. */
let clock: number;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-kbs-token-keys-'));
  clock = Date.parse('2026-06-01T00:00:00Z');
  writeFileSync(join(directory, 'owner.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
  const config = {
    listen: { host: '127.0.0.1', port: 0 },
    dataDirectory: 'data',
    insecureHttp: true,
    admin: { keys: [{ publicKeyFile: 'owner.pem' }] },
    attestationService: { type: 'builtin', sample: true },
  };
  kbs = await createKbs(parseKbsConfig(config, directory), { log: pino({ level: 'silent' }), now: () => clock });
});
afterEach(async () => {
  await kbs.close(200);
  rmSync(directory, { recursive: true, force: true });
});

async function as(role: AdminRole, method: string, target: string, body?: string): Promise<Reply> {
  const token = await signAdminToken({ privateKey, role, subject: role, ttlSeconds: 60, now: clock });
  const headers = { authorization: `Bearer ${token}` };
  return call(kbs.address, target, { method, headers, ...(body === undefined ? {} : { body }) });
}

interface Attested {
  readonly guest: Guest;
  readonly token: string;
  readonly kid: string;
}

async function attested(): Promise<Attested> {
  const guest = await authenticate(kbs.address);
  const reply = await attest(kbs.address, guest);
  expect(reply.status, reply.text).toBe(200);
  const token = String(reply.json()['token']);
  return { guest, token, kid: decodeProtectedHeader(token).kid ?? '' };
}

async function published(): Promise<unknown[]> {
  const { keys } = (await call(kbs.address, '/.well-known/jwks.json')).json() as { keys: { kid: string }[] };
  return keys.map(({ kid }) => kid);
}

/** Asks with the token alone, as a guest whose session is at another replica or over. */
const fetchSecret = ({ token }: Attested): Promise<Reply> =>
  call(kbs.address, '/kbs/v0/resource/default/key/1', { headers: { authorization: `Bearer ${token}` } });

describe('the keys that sign tokens', () => {
  it('rotate: the new one is published, then signs; tokens of the old one open secrets until they expire', async () => {
    await as('owner', 'PUT', '/admin/v1/policies/resource/open', 'package policy\nimport rego.v1\nallow := true');
    await as('owner', 'PUT', '/admin/v1/resources/default/key/1?policy=open', 'secret');
    const first = await attested();
    expect(await published()).toEqual([first.kid]);
    expect((await as('owner', 'GET', root)).json()).toEqual({
      'token-keys': [{ kid: first.kid, state: 'signing', signsFrom: '2026-06-01T00:00:00.000Z' }],
    });

    const rotated = (await as('operator', 'POST', `${root}/rotate`)).json();
    expect(rotated).toMatchObject({
      rotated: true,
      'token-keys': [
        { kid: first.kid, state: 'signing', publishedUntil: expect.any(String) },
        { state: 'next', signsFrom: '2026-06-01T00:05:00.000Z' },
      ],
    });
    const both = await published();
    expect(both).toEqual([first.kid, expect.not.stringMatching(first.kid)]);
    expect((await as('owner', 'POST', `${root}/rotate`)).json()).toMatchObject({ rotated: false });
    expect(await published()).toEqual(both);

    clock += 4 * minute + 30_000;
    const last = await attested();
    expect(last.kid).toBe(first.kid);
    clock += minute;
    const next = await attested();
    expect(next.kid).toBe(both[1]);
    for (const one of [last, next]) {
      const reply = await fetchSecret(one);
      expect(reply.status, reply.text).toBe(200);
      expect(opened(one.guest, reply)).toBe('secret');
    }
    expect((await as('owner', 'GET', root)).json()).toMatchObject({
      'token-keys': [{ state: 'retired' }, { kid: both[1], state: 'signing' }],
    });

    clock += 7 * minute;
    expect(await published()).toEqual([both[1]]);
    expect((await fetchSecret(last)).json()).toMatchObject({ code: 'TOKEN_INVALID' });
    const { decisions } = (await as('owner', 'GET', '/admin/v1/decisions?limit=100')).json() as {
      decisions: { action: string; outcome: string; target: string; subject: { administrator: string } }[];
    };
    expect(decisions.filter(({ action }) => action === 'ROTATE token key').map(({ outcome }) => outcome)).toEqual(
      expect.arrayContaining(['INTENT', 'OK']),
    );
    expect(decisions).toContainEqual(
      expect.objectContaining({
        action: 'ROTATE token key',
        outcome: 'OK',
        target: both[1],
        subject: expect.objectContaining({ administrator: 'operator' }),
      }),
    );
  });

  it('are seen by every role and rotated by owners and operators; nobody else learns anything', async () => {
    for (const role of ['owner', 'operator', 'auditor'] as const)
      expect((await as(role, 'GET', root)).status, role).toBe(200);
    const before = await published();
    expect((await as('auditor', 'POST', `${root}/rotate`)).json()).toMatchObject({ code: 'ADMIN_ROLE' });
    const anonymous = await call(kbs.address, `${root}/rotate`, { method: 'POST' });
    expect([anonymous.status, anonymous.json()['code']]).toEqual([401, 'ADMIN_TOKEN']);
    expect(await published()).toEqual(before);
    expect((await as('owner', 'GET', root)).text).not.toMatch(/pkcs8|"d"/);
    expect((await as('owner', 'PUT', `${root}/rotate`)).status).toBe(404);
  });

  it('of an attestation service elsewhere are not rotated here', async () => {
    const other = await startTestKbs();
    try {
      for (const [method, target] of [
        ['GET', root],
        ['POST', `${root}/rotate`],
      ] as const) {
        const reply = await other.admin(target, { method });
        expect(reply.json()).toMatchObject({ code: 'UNSUPPORTED', fix: expect.stringContaining('/token-keys/rotate') });
      }
    } finally {
      await other.remove();
    }
  });
});
