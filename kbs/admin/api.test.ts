import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call } from '../testing/client.ts';
import { startTestKbs, type TestKbs } from '../testing/kbs.ts';

let kbs: TestKbs;
beforeEach(async () => {
  kbs = await startTestKbs({ limits: { maxResourceBytes: 1000, keptVersions: 2 } });
});
afterEach(() => kbs.remove());

const put = (target: string, body: string | Uint8Array) => kbs.admin(target, { method: 'PUT', body });

describe('resources', () => {
  it('are written, listed without their content, versioned and removed', async () => {
    expect((await put('/admin/v1/resources/a/b/c', 'one')).json()).toMatchObject({
      path: 'a/b/c',
      version: 1,
      size: 3,
    });
    expect((await put('/admin/v1/resources/a/b/c', 'three')).json()).toMatchObject({ version: 2, size: 5 });
    await put('/admin/v1/resources/a/b/a', Uint8Array.from([0, 255]));
    const list = await kbs.admin('/admin/v1/resources');
    expect(list.json()['resources']).toMatchObject([
      { path: 'a/b/a', size: 2 },
      { path: 'a/b/c', version: 2 },
    ]);
    expect(list.text).not.toContain('three');
    const metadata = await kbs.admin('/admin/v1/resources/a/b/c');
    expect(Object.keys(metadata.json()).toSorted()).toEqual(['path', 'size', 'updatedAt', 'version']);
    expect((await kbs.admin('/admin/v1/resources/a/b/c', { method: 'DELETE' })).status).toBe(204);
    expect((await kbs.admin('/admin/v1/resources/a/b/c')).json()).toMatchObject({ code: 'RES_NOT_FOUND' });
    expect((await kbs.admin('/admin/v1/resources/a/b/c', { method: 'DELETE' })).status).toBe(404);
    expect((await put('/admin/v1/resources/a/b/c', 'x')).json()).toMatchObject({ version: 3 });
  });

  it.each([
    ['/admin/v1/resources/a/b/.c', 400, 'RES_NAME'],
    ['/admin/v1/resources/a/b/c%2fd', 400, 'RES_NAME'],
    ['/admin/v1/resources/a/b/%2e%2e', 400, 'RES_NAME'],
    ['/admin/v1/resources/a/b/c%20d', 400, 'RES_NAME'],
    ['/admin/v1/resources/a/b/c?policy=no-such', 400, 'POLICY_UNSET'],
    ['/admin/v1/resources/a/b/c?policy=../x', 400, 'REQUEST_FORMAT'],
  ])('PUT %s is refused with %s %s, and nothing is written', async (target, status, code) => {
    const reply = await put(target, 'x');
    expect(reply.status).toBe(status);
    expect(reply.json()).toMatchObject({ code });
    expect((await kbs.admin('/admin/v1/resources')).json()).toEqual({ resources: [] });
  });

  it('larger than the limit are refused', async () => {
    expect((await put('/admin/v1/resources/a/b/c', 'x'.repeat(1000))).status).toBe(200);
    const reply = await put('/admin/v1/resources/a/b/d', 'x'.repeat(1001));
    expect(reply.status).toBe(413);
    expect(reply.json()).toMatchObject({ code: 'REQUEST_TOO_LARGE', expected: 'at most 1000 bytes' });
  });
});

describe('policies', () => {
  const text = 'package policy\nallow := false\n';

  it('of resources are compiled, stored and read back', async () => {
    const stored = (await put('/admin/v1/policies/resource/team', text)).json();
    expect(stored).toMatchObject({ kind: 'resource', id: 'team', sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
    const read = (await kbs.admin('/admin/v1/policies/resource/team')).json();
    expect(read).toEqual({ ...stored, policy: text });
    const broken = await put('/admin/v1/policies/resource/team', 'package policy\nallow if {{{');
    expect(broken.status).toBe(400);
    expect(broken.json()).toMatchObject({ code: 'POLICY_INVALID' });
    expect((await kbs.admin('/admin/v1/policies/resource/team')).json()['policy']).toBe(text);
    const listed = (await kbs.admin('/admin/v1/policies')).json()['policies'];
    expect(listed).toMatchObject([
      { kind: 'resource', id: 'resource-policy' },
      { kind: 'resource', id: 'team' },
    ]);
    expect((await kbs.admin('/admin/v1/policies/resource/team', { method: 'DELETE' })).status).toBe(204);
    expect((await kbs.admin('/admin/v1/policies/resource/team')).status).toBe(404);
  });

  it('of the attestation service are handed on, the intent recorded before', async () => {
    expect((await put('/admin/v1/policies/attestation/default_cpu', text)).status).toBe(200);
    expect((await kbs.admin('/admin/v1/policies/attestation/default_cpu')).json()).toMatchObject({
      kind: 'attestation',
      policy: text,
    });
    const decisions = (await kbs.admin('/admin/v1/decisions?limit=2')).json()['decisions'];
    expect(decisions).toMatchObject([
      {
        action: 'PUT attestation policy',
        outcome: 'OK',
        target: 'default_cpu',
        policy: { id: 'default_cpu' },
        subject: { administrator: 'owner@test', role: 'owner' },
      },
      { action: 'PUT attestation policy', outcome: 'INTENT', target: 'default_cpu' },
    ]);
  });

  it('the built-in one can be replaced and comes back when that is removed', async () => {
    const builtIn = (await kbs.admin('/admin/v1/policies/resource/resource-policy')).json();
    await put('/admin/v1/policies/resource/resource-policy', text);
    await kbs.admin('/admin/v1/policies/resource/resource-policy', { method: 'DELETE' });
    expect((await kbs.admin('/admin/v1/policies/resource/resource-policy')).json()).toEqual(builtIn);
  });

  it.each([
    '/admin/v1/policies/other/x',
    '/admin/v1/policies/resource/..%2fx',
    '/admin/v1/policies/resource/.x',
    '/admin/v1/policies/resource/%00',
  ])('PUT %s is refused', async (target) => {
    const reply = await put(target, text);
    expect([400, 404]).toContain(reply.status);
    expect((await kbs.admin('/admin/v1/policies')).json()['policies']).toHaveLength(1);
  });

  it('are tried without being stored', async () => {
    await put('/admin/v1/reference-values/svn', JSON.stringify({ value: ['1'] }));
    const policy =
      'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2} if "1" in query_reference_value("svn")';
    const body = JSON.stringify({ kind: 'attestation', policy, input: {}, data: {} });
    const reply = await kbs.admin('/admin/v1/policies/test', { method: 'POST', body });
    expect(reply.json()['values']).toEqual({ 'data.policy.trust_claims': { hardware: 2 } });
    const resource = {
      kind: 'resource',
      policy: 'package policy\nallow := input.x == data.y',
      input: { x: 1 },
      data: { y: 1 },
    };
    const allowed = await kbs.admin('/admin/v1/policies/test', { method: 'POST', body: JSON.stringify(resource) });
    expect(allowed.json()['values']).toEqual({ 'data.policy.allow': true });
    const broken = await kbs.admin('/admin/v1/policies/test', { method: 'POST', body: '{"kind":"resource"}' });
    expect(broken.json()).toMatchObject({ code: 'REQUEST_FORMAT' });
  });
});

describe('reference values', () => {
  it('are written with a date, read, listed and removed', async () => {
    const expiresAt = '2027-01-01T00:00:00Z';
    const body = JSON.stringify({ value: ['ab'], expiresAt });
    expect((await put('/admin/v1/reference-values/tpm_kernel', body)).json()).toMatchObject({
      version: 1,
      value: ['ab'],
      expiresAt,
    });
    expect((await kbs.admin('/admin/v1/reference-values')).json()['reference-values']).toMatchObject([
      { id: 'tpm_kernel' },
    ]);
    expect((await kbs.admin('/admin/v1/reference-values/tpm_kernel')).json()).toMatchObject({ value: ['ab'] });
    expect((await kbs.admin('/admin/v1/reference-values/tpm_kernel', { method: 'DELETE' })).status).toBe(204);
    expect((await kbs.admin('/admin/v1/reference-values/tpm_kernel')).status).toBe(404);
    expect((await kbs.admin('/admin/v1/reference-values/tpm_kernel', { method: 'DELETE' })).status).toBe(404);
  });

  it.each(['', 'x', '[]', '{}', '{"value":1,"value":2}', '{"value":1,"expiresAt":5}'])(
    'PUT of %j is refused',
    async (body) => {
      expect((await put('/admin/v1/reference-values/v', body)).status).toBe(400);
      expect(kbs.attestation.values.size).toBe(0);
    },
  );
});

describe('who may do what', () => {
  it.each([
    ['GET', '/admin/v1/resources'],
    ['PUT', '/admin/v1/resources/a/b/c'],
    ['DELETE', '/admin/v1/resources/a/b/c'],
    ['PUT', '/admin/v1/policies/resource/x'],
    ['POST', '/admin/v1/policies/test'],
    ['PUT', '/admin/v1/reference-values/x'],
    ['GET', '/admin/v1/decisions'],
    ['GET', '/admin/v1/decisions/x'],
    ['GET', '/admin/v1/status'],
  ])('%s %s needs a token, and says nothing more', async (method, target) => {
    const reply = await call(kbs.address, target, { method, ...(method === 'GET' ? {} : { body: 'x' }) });
    expect(reply.status).toBe(401);
    expect(reply.headers['www-authenticate']).toBe('Bearer');
    expect(Object.keys(reply.json()).toSorted()).toEqual(['code', 'correlation-id', 'detail', 'type']);
    expect(reply.headers['x-correlation-id']).toBe(reply.json()['correlation-id']);
  });

  it('an auditor reads decisions and status and nothing else', async () => {
    for (const target of ['/admin/v1/decisions', '/admin/v1/status']) {
      expect((await kbs.admin(target, { role: 'auditor' })).status).toBe(200);
    }
    for (const target of ['/admin/v1/resources', '/admin/v1/policies', '/admin/v1/reference-values']) {
      expect((await kbs.admin(target, { role: 'auditor' })).json()).toMatchObject({ code: 'ADMIN_ROLE' });
    }
    const write = await kbs.admin('/admin/v1/resources/a/b/c', { role: 'auditor', method: 'PUT', body: 'x' });
    expect(write.status).toBe(403);
    expect((await kbs.admin('/admin/v1/decisions', { role: 'operator' })).status).toBe(403);
  });
});

describe('insight', () => {
  it('decisions: limits are held, and what is not there is 404', async () => {
    for (const limit of ['0', '1001', 'x', '1.5', '-1', '']) {
      expect((await kbs.admin(`/admin/v1/decisions?limit=${limit}`)).status, limit).toBe(400);
    }
    expect((await kbs.admin('/admin/v1/decisions/unknown')).json()).toMatchObject({ code: 'NOT_FOUND' });
  });

  it('status counts what there is', async () => {
    await put('/admin/v1/resources/a/b/c', 'x');
    expect((await kbs.admin('/admin/v1/status')).json()).toMatchObject({
      resources: 1,
      resourcePolicies: 1,
      attestationService: 'builtin',
      tls: false,
    });
  });

  it('publishes the keys that verify tokens', async () => {
    const reply = await call(kbs.address, '/.well-known/jwks.json');
    expect(reply.json()).toEqual({ keys: [kbs.attestation.signer.jwk] });
  });

  it('metrics: text, without names of secrets or addresses', async () => {
    await put('/admin/v1/resources/hidden-team/secret/name', 'x');
    await call(kbs.address, '/kbs/v0/resource/hidden-team/secret/name');
    const reply = await call(kbs.address, '/metrics');
    expect(reply.status).toBe(200);
    expect(reply.headers['content-type']).toContain('text/plain; version=0.0.4');
    expect(reply.text).toContain('kbs_http_requests_total{route="resource",status="401"} 1');
    expect(reply.text).toContain('kbs_refusals_total{code="TOKEN_MISSING"} 1');
    expect(reply.text).toContain('kbs_resource_operations_total{operation="write"} 1');
    expect(reply.text).not.toMatch(/hidden-team|secret|name"|127\.0\.0\.1/);
  });
});
