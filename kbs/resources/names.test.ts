import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseTarget, splitTarget } from '../server/target.ts';
import { attest, authenticate, call, opened } from '../testing/client.ts';
import { startTestKbs, type TestKbs } from '../testing/kbs.ts';
import { resourcePathOf } from './store.ts';

/** The name that the server makes of a request target, or undefined where it refuses. */
function nameOf(target: string): string | undefined {
  const split = splitTarget(target);
  if (split === undefined || !split.path.startsWith('/kbs/v0/resource/')) return undefined;
  try {
    return resourcePathOf(parseTarget(split.path.slice('/kbs/v0/resource/'.length), split.query).segments);
  } catch {
    return undefined;
  }
}

const good = fc.stringMatching(/^[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,20}$/);
const tricks = fc.constantFrom(
  '..',
  '.',
  '',
  '%2e%2e',
  '%2e',
  '%2f',
  '%5c',
  '\\',
  '%00',
  '%c0%af',
  '%252e',
  'a%2fb',
  '/',
  '%',
  '%zz',
  'é',
  '%c3%a9',
  ' ',
  '+',
  ';',
  ':',
  '~',
  '.a',
  '%ef%bc%8f',
  '‥',
  '%2E%2E%2F',
);

describe('resource names', () => {
  it('G-24: a target has one name or none, and the name is canonical', () => {
    const segment = fc.oneof(
      good,
      tricks,
      fc.tuple(good, tricks).map((parts) => parts.join('')),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 6 }), (segments) => {
        const name = nameOf(`/kbs/v0/resource/${segments.join('/')}`);
        if (name === undefined) return;
        expect(name).toMatch(/^[a-zA-Z0-9_-][a-zA-Z0-9_.-]*(\/[a-zA-Z0-9_-][a-zA-Z0-9_.-]*){2}$/);
        expect(name.split('/')).not.toContain('..');
        // The canonical spelling has the same name.
        expect(nameOf(`/kbs/v0/resource/${name}`)).toBe(name);
      }),
      { numRuns: 2000 },
    );
  });

  it('G-24: a good name is itself, also where single characters are percent-encoded', () => {
    fc.assert(
      fc.property(good, good, good, fc.nat(), (repository, type, tag, at) => {
        const name = `${repository}/${type}/${tag}`;
        expect(nameOf(`/kbs/v0/resource/${name}`)).toBe(name);
        const index = at % tag.length;
        const encoded = `%${tag.charCodeAt(index).toString(16)}`;
        expect(
          nameOf(`/kbs/v0/resource/${repository}/${type}/${tag.slice(0, index)}${encoded}${tag.slice(index + 1)}`),
        ).toBe(name);
      }),
    );
  });

  it('G-24: a name is decoded once', () => {
    expect(nameOf('/kbs/v0/resource/a/b/%2531')).toBeUndefined();
    expect(nameOf('/kbs/v0/resource/a/b/%31')).toBe('a/b/1');
    expect(nameOf('/kbs/v0/resource/a%2fb/c')).toBeUndefined();
    expect(nameOf('/kbs/v0/resource/a/b/../b/c')).toBeUndefined();
  });
});

describe('the server', () => {
  let kbs: TestKbs;
  beforeAll(async () => {
    kbs = await startTestKbs();
    await kbs.admin('/admin/v1/resources/default/key/1', { method: 'PUT', body: 'secret' });
    const policy = 'package policy\nimport rego.v1\nallow if data["resource-path"] == ["default", "key", "1"]';
    await kbs.admin('/admin/v1/policies/resource/resource-policy', { method: 'PUT', body: policy });
  });
  afterAll(() => kbs.remove());

  it('G-24: policy, store and record see the same decoded name', async () => {
    const guest = await authenticate(kbs.address);
    await attest(kbs.address, guest);
    const headers = { cookie: guest.cookie };
    const reply = await call(kbs.address, '/kbs/v0/%72esource/default/k%65y/%31', { headers });
    expect(opened(guest, reply)).toBe('secret');
    const decisions = (await kbs.admin(`/admin/v1/decisions/${guest.correlationId}`)).json()['decisions'];
    expect(decisions).toMatchObject([{}, {}, { outcome: 'OK', resource: { path: 'default/key/1' } }]);
    for (const path of [
      'default%2fkey%2f1',
      'default/key/1/',
      'default//key/1',
      'x/../default/key/1',
      './default/key/1',
      'default/key/1%00',
    ]) {
      const refusal = await call(kbs.address, `/kbs/v0/resource/${path}`, { headers });
      expect(refusal.status, path).toBe(401);
      expect(refusal.json()).toMatchObject({ code: 'RES_NAME', detail: 'Plugin internal error' });
    }
  });

  it('G-24: an administrator’s right is decided on the decoded path, not on how it is spelled', async () => {
    for (const target of [
      '/kbs/v0/resource/a/b/c',
      '/kbs/v0/%72esource/a/b/c',
      '/kbs/v0/resource/a/b/%63?x=/kbs/v0/reference-value/x',
    ]) {
      const reply = await kbs.admin(target, { method: 'POST', body: 'x', role: 'auditor' });
      expect(reply.status).toBe(401);
      expect(reply.json()).toMatchObject({
        code: 'ADMIN_ROLE',
        detail: expect.stringContaining('Role auditor not allowed for path /kbs/v0/resource/a/b/c'),
      });
    }
    expect((await kbs.admin('/admin/v1/resources/a/b/c')).status).toBe(404);
  });
});
