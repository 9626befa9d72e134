import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { checkLogChain, openStorage } from '@sealpod/storage';
import { afterEach, describe, expect, it } from 'vitest';
import { attest, authenticate, call, opened } from '../testing/client.ts';
import { startTestKbs, type TestKbs } from '../testing/kbs.ts';

let kbs: TestKbs;
afterEach(() => kbs.remove());

const resource = '/kbs/v0/resource/default/key/1';
const databaseOf = ({ directory }: TestKbs) => join(directory, 'data', 'kbs.db');

/** Makes every further append to the record of decisions fail, as a damaged or full disk would. */
function breakRecord(): void {
  const database = new DatabaseSync(databaseOf(kbs));
  database.exec(`CREATE TRIGGER broken BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END`);
  database.close();
}

async function startWithSecret(changes = {}): Promise<void> {
  kbs = await startTestKbs(changes);
  await kbs.admin('/admin/v1/resources/default/key/1', { method: 'PUT', body: 'secret' });
}

describe('nothing happens that cannot be recorded', () => {
  it('neither a release, nor a token, nor a challenge, nor a write', async () => {
    await startWithSecret();
    const guest = await authenticate(kbs.address);
    const waiting = await authenticate(kbs.address);
    await attest(kbs.address, guest);
    breakRecord();
    const release = await call(kbs.address, resource, { headers: { cookie: guest.cookie } });
    const token = await attest(kbs.address, waiting);
    const challenge = await call(kbs.address, '/kbs/v0/auth', {
      method: 'POST',
      body: '{"version":"0.4.0","tee":"sample","extra-params":""}',
    });
    const write = await kbs.admin('/admin/v1/resources/default/key/1', { method: 'PUT', body: 'changed' });
    const forwarded = await kbs.admin('/admin/v1/reference-values/x', { method: 'PUT', body: '{"value":1}' });
    const policy = await kbs.admin('/admin/v1/policies/attestation/x', { method: 'PUT', body: 'package policy' });
    for (const reply of [release, token, challenge, write, forwarded, policy]) {
      expect(reply.status).toBe(500);
      expect(reply.json()).toMatchObject({ code: 'AUDIT_APPEND_FAILED' });
      expect(reply.text).not.toContain('ciphertext');
      expect(reply.text).not.toContain('I/O');
    }
    expect(kbs.attestation.values.size + kbs.attestation.policies.size).toBe(0);
    expect((await kbs.admin('/admin/v1/resources/default/key/1')).json()).toMatchObject({ version: 1 });
    // The evidence was not decided on, so its nonce is not spent; nothing of it was given out either.
    const database = new DatabaseSync(databaseOf(kbs));
    database.exec('DROP TRIGGER broken');
    database.close();
    expect((await attest(kbs.address, waiting)).status).toBe(200);
    expect(opened(guest, await call(kbs.address, resource, { headers: { cookie: guest.cookie } }))).toBe('secret');
  });

  it('also where the disk is full', async () => {
    await startWithSecret({ limits: { maxDatabaseBytes: 160 * 1024 } });
    const guest = await authenticate(kbs.address);
    await attest(kbs.address, guest);
    const statuses = new Set<number>();
    for (let index = 0; index < 400 && !statuses.has(500); index += 1) {
      const reply = await call(kbs.address, resource, { headers: { cookie: guest.cookie } });
      statuses.add(reply.status);
      if (reply.status !== 500) continue;
      expect(reply.json()).toMatchObject({ code: 'AUDIT_APPEND_FAILED' });
      expect(reply.text).not.toContain('ciphertext');
    }
    expect([...statuses].toSorted()).toEqual([200, 500]);
  });
});

describe('the record', () => {
  it('is a chain that shows a changed record', async () => {
    await startWithSecret();
    for (let index = 0; index < 5; index += 1) await authenticate(kbs.address);
    const storage = await openStorage({ path: databaseOf(kbs), sweepIntervalMs: 0 });
    expect(await checkLogChain(storage, 'kbs/decisions')).toMatchObject({ records: 6 });
    const database = new DatabaseSync(databaseOf(kbs));
    database.exec(
      `DROP TRIGGER log_is_not_updated; UPDATE log SET value = replace(value, 'sample', 'tdx') WHERE sequence = 3`,
    );
    database.close();
    expect(await checkLogChain(storage, 'kbs/decisions')).toMatchObject({ brokenAt: 3 });
    await storage.close();
  });

  it('names administrators and what they did', async () => {
    await startWithSecret();
    await kbs.admin('/kbs/v0/resource/default/key/2', { method: 'POST', body: 'x', role: 'operator' });
    await kbs.admin('/kbs/v0/resource/default/key/2', { method: 'DELETE' });
    const decisions = (await kbs.admin('/admin/v1/decisions')).json()['decisions'];
    const subject = { administrator: 'owner@test', role: 'owner', remoteAddress: '127.0.0.1' };
    expect(decisions).toMatchObject([
      { kind: 'admin', action: 'DELETE resource', target: 'default/key/2', subject },
      {
        kind: 'admin',
        action: 'POST resource',
        subject: { administrator: 'operator@test', role: 'operator' },
        resource: { version: 1 },
      },
      {
        kind: 'admin',
        action: 'PUT resource',
        target: 'default/key/1',
        resource: { path: 'default/key/1', version: 1 },
      },
    ]);
  });
});

describe('G-12: secrets', () => {
  it('stand in no log, no record, no metric and no error, whatever is done', async () => {
    const marker = 'canary-4f1d0c7e';
    await startWithSecret();
    await kbs.admin('/admin/v1/resources/default/key/1', { method: 'PUT', body: marker });
    await kbs.admin('/kbs/v0/resource/default/key/2', { method: 'POST', body: marker });
    const guest = await authenticate(kbs.address);
    const token = String((await attest(kbs.address, guest)).json()['token']);
    const replies = [
      await call(kbs.address, resource, { headers: { cookie: guest.cookie } }),
      await call(kbs.address, resource, { headers: { authorization: `Bearer ${token}` } }),
      await call(kbs.address, resource, { headers: { authorization: `Bearer ${token}x` } }),
      await kbs.admin('/admin/v1/resources'),
      await kbs.admin('/admin/v1/resources/default/key/1'),
      await kbs.admin('/kbs/v0/resource/default/key', { method: 'POST', body: marker }),
      await kbs.admin('/admin/v1/policies/resource/x', { method: 'PUT', body: `${marker}` }),
      await kbs.admin('/admin/v1/reference-values/x', { method: 'PUT', body: `{"value":"${marker}` }),
      await call(kbs.address, '/kbs/v0/auth', {
        method: 'POST',
        body: `{"version":"0.4.0","tee":"sample","extra-params":"${marker}`,
      }),
      await attest(kbs.address, guest, `{"runtime-data":"${marker}"}`),
    ];
    kbs.attestation.status = 'contraindicated';
    const other = await authenticate(kbs.address);
    await attest(kbs.address, other);
    replies.push(await call(kbs.address, resource, { headers: { cookie: other.cookie } }));
    breakRecord();
    replies.push(await kbs.admin('/admin/v1/resources/default/key/1', { method: 'PUT', body: marker }));
    replies.push(await call(kbs.address, resource, { headers: { cookie: guest.cookie } }));
    replies.push(await kbs.admin('/admin/v1/decisions?limit=1000'), await call(kbs.address, '/metrics'));
    expect(opened(guest, replies[0] as (typeof replies)[number])).toBe(marker);
    const administrator = await kbs.token();
    const database = new DatabaseSync(databaseOf(kbs));
    const records = JSON.stringify(database.prepare('SELECT * FROM log').all());
    database.close();
    const bearerTail = token.split('.')[2] ?? '';
    for (const [where, text] of [
      ['log', kbs.log()],
      ['record', records],
      ...replies.map((reply, index) => [`reply ${index}`, reply.text]),
    ]) {
      // The engine quotes the line it cannot compile to the administrator who sent it, and to nobody else.
      if (where !== 'reply 6') expect(text, where).not.toContain(marker);
      if (where === 'reply 6') continue;
      expect(text, where).not.toContain(Buffer.from(marker).toString('base64').slice(0, -2));
      expect(text, where).not.toContain(bearerTail);
      expect(text, where).not.toContain(guest.cookie.split('=')[1]);
      expect(text, where).not.toContain(administrator.split('.')[2]);
    }
    expect(kbs.log().length).toBeGreaterThan(100);
    // Session ids and guests' tokens: the id is stored as its hash only.
    const stored = readdirSync(join(kbs.directory, 'data')).filter((name) => name.startsWith('kbs.db'));
    const bytes = Buffer.concat(stored.map((name) => readFileSync(join(kbs.directory, 'data', name))));
    expect(bytes.includes(guest.cookie.split('=')[1] ?? '')).toBe(false);
  });
});
