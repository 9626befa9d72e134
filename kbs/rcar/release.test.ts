import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { attest, authenticate, call, type Guest, opened } from '../testing/client.ts';
import { earPayload, newSigner, signPayload } from '../testing/fake-attestation-service.ts';
import { startTestKbs, type TestKbs } from '../testing/kbs.ts';

/** The machine may be busy. */
const patience = { timeout: 20_000 };

let kbs: TestKbs;
const secret = 'the secret of the test';
const resource = '/kbs/v0/resource/default/key/1';

beforeEach(async () => {
  kbs = await startTestKbs();
  const put = await kbs.admin('/admin/v1/resources/default/key/1', { method: 'PUT', body: secret });
  expect(put.status).toBe(200);
});

afterEach(() => kbs.remove());

async function attested(): Promise<{ guest: Guest; token: string }> {
  const guest = await authenticate(kbs.address);
  const reply = await attest(kbs.address, guest);
  expect(reply.status).toBe(200);
  return { guest, token: String(reply.json()['token']) };
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

describe('a release', () => {
  it('goes from challenge to the secret, by cookie and by bearer, under one correlation id', async () => {
    const { guest, token } = await attested();
    const byCookie = await call(kbs.address, resource, { headers: { cookie: guest.cookie } });
    const byBearer = await call(kbs.address, resource, bearer(token));
    for (const reply of [byCookie, byBearer]) {
      expect(reply.status).toBe(200);
      expect(reply.headers['content-type']).toBe('application/json');
      expect(reply.headers['x-correlation-id']).toBe(guest.correlationId);
      expect(opened(guest, reply)).toBe(secret);
    }
    const decisions = await kbs.admin(`/admin/v1/decisions/${guest.correlationId}`);
    expect(decisions.json()['decisions']).toMatchObject([
      { kind: 'auth', outcome: 'OK', subject: { tee: 'sample' } },
      {
        kind: 'attest',
        outcome: 'OK',
        policyVersions: { default_cpu: 'f'.repeat(64) },
        referenceValueVersions: { svn: 1 },
      },
      {
        kind: 'resource',
        outcome: 'OK',
        resource: { path: 'default/key/1', version: 1 },
        policy: { id: 'resource-policy' },
      },
      { kind: 'resource', outcome: 'OK', subject: { submods: { cpu0: 'affirming' } } },
    ]);
  });

  it('G-25: a secret for one session cannot be opened with the key of another', async () => {
    const one = await attested();
    const other = await attested();
    const reply = await call(kbs.address, resource, bearer(one.token));
    expect(opened(one.guest, reply)).toBe(secret);
    expect(() => opened(other.guest, reply)).toThrow();
  });

  it('gives the newest version, and keeps the binding to a policy over a rewrite', async () => {
    await kbs.admin('/admin/v1/policies/resource/open', { method: 'PUT', body: 'package policy\nallow := true' });
    await kbs.admin('/admin/v1/resources/default/key/1?policy=open', { method: 'PUT', body: 'two' });
    await kbs.admin(resource, { method: 'POST', body: 'three' });
    const metadata = await kbs.admin('/admin/v1/resources/default/key/1');
    expect(metadata.json()).toMatchObject({ version: 3, policy: 'open', size: 5 });
    kbs.attestation.status = 'contraindicated';
    const { guest, token } = await attested();
    expect(opened(guest, await call(kbs.address, resource, bearer(token)))).toBe('three');
  });
});

describe('sessions', () => {
  it('G-13: survive a restart between challenge and evidence', async () => {
    const guest = await authenticate(kbs.address);
    kbs = await kbs.restart();
    expect((await attest(kbs.address, guest)).status).toBe(200);
    const reply = await call(kbs.address, resource, { headers: { cookie: guest.cookie } });
    expect(opened(guest, reply)).toBe(secret);
  });

  it('G-13, finding 6: spend the nonce on the first answer, also a wrong one', async () => {
    const guest = await authenticate(kbs.address);
    const wrong = await attest(kbs.address, guest, guest.attestation({ nonce: 'AAAA' }));
    expect(wrong.status).toBe(401);
    expect(wrong.json()).toMatchObject({ code: 'EV_NONCE_MISMATCH', 'correlation-id': guest.correlationId });
    expect((await attest(kbs.address, guest)).json()).toMatchObject({ code: 'SESSION_UNKNOWN' });
    expect(kbs.attestation.evaluations).toBe(0);
  });

  it('refuse a second answer after a success', async () => {
    const { guest } = await attested();
    expect((await attest(kbs.address, guest)).json()).toMatchObject({ code: 'SESSION_UNKNOWN' });
    const reply = await call(kbs.address, resource, { headers: { cookie: guest.cookie } });
    expect(opened(guest, reply)).toBe(secret);
  });

  it('G-13: of answers at the same time exactly one counts', async () => {
    const guest = await authenticate(kbs.address);
    const gate = Promise.withResolvers<void>();
    kbs.attestation.gate = gate.promise;
    const replies = Array.from({ length: 8 }, () => attest(kbs.address, guest));
    await expect.poll(() => kbs.attestation.evaluations, patience).toBe(8);
    gate.resolve();
    const statuses = (await Promise.all(replies)).map((reply) => reply.status);
    expect(statuses.toSorted()).toEqual([200, 401, 401, 401, 401, 401, 401, 401]);
    const decisions = (await kbs.admin(`/admin/v1/decisions/${guest.correlationId}`)).json()['decisions'];
    expect(decisions).toMatchObject([{ kind: 'auth' }, { kind: 'attest', outcome: 'OK' }]);
  });

  it('end: neither evidence nor a resource is taken after their time', async () => {
    await kbs.remove();
    let ahead = 0;
    kbs = await startTestKbs({}, { now: () => Date.now() + ahead });
    const late = await authenticate(kbs.address);
    const { guest } = await attested();
    ahead = 301_000;
    expect((await attest(kbs.address, late)).json()).toMatchObject({ code: 'SESSION_UNKNOWN' });
    const reply = await call(kbs.address, resource, { headers: { cookie: guest.cookie } });
    expect(reply.status).toBe(401);
    expect(reply.json()).toMatchObject({ code: 'TOKEN_MISSING', detail: 'Attestation Token not found' });
  });

  it('are fixed to the TEE they were opened for', async () => {
    const guest = await authenticate(kbs.address, { tee: 'snp' });
    const reply = await attest(kbs.address, guest);
    expect(reply.status).toBe(401);
    expect(reply.json()).toMatchObject({ code: 'EV_TEE_UNSUPPORTED' });
  });

  it('carry a cookie that scripts and other sites cannot use', async () => {
    const reply = await call(kbs.address, '/kbs/v0/auth', {
      method: 'POST',
      body: '{"version":"0.4.0","tee":"sample","extra-params":""}',
    });
    expect(reply.headers['set-cookie']?.[0]).toMatch(
      /^kbs-session-id=[0-9a-f]{32}; Expires=[^;]+ GMT; HttpOnly; SameSite=Strict$/,
    );
  });
});

describe('credential activation', () => {
  const tpm = { 'ek-certificate': 'RUs=', 'ak-public': 'QUs=' };

  it('passes what a guest with a TPM sends, with the nonce, and what comes back', async () => {
    const guest = await authenticate(kbs.address, { tee: 'tpm', 'extra-params': { tpm } });
    expect(guest.extraParams).toEqual({ tpm: { 'credential-blob': 'AAAA', 'encrypted-secret': 'BBBB' } });
    expect(kbs.attestation.challenges).toHaveLength(1);
    const [inner] = kbs.attestation.challenges;
    expect(inner?.['tee']).toBe('tpm');
    expect(JSON.parse(inner?.['tee_params'] ?? '')).toEqual({ nonce: guest.nonce, ...tpm });
  });

  it('is not asked for where no TPM is named; extra-params is then the empty string', async () => {
    expect((await authenticate(kbs.address, { tee: 'tpm' })).extraParams).toBe('');
    expect((await authenticate(kbs.address, { tee: 'sample', 'extra-params': { tpm } })).extraParams).toBe('');
    expect(kbs.attestation.challenges).toEqual([]);
  });
});

describe('what a guest learns', () => {
  it('is code and correlation id, never a reason', async () => {
    const guest = await authenticate(kbs.address);
    const reply = await attest(kbs.address, guest, guest.attestation({ additional: '{"snp":{}}' }));
    expect(Object.keys(reply.json()).toSorted()).toEqual(['code', 'correlation-id', 'detail', 'type']);
    expect(reply.json()).toMatchObject({
      type: 'https://github.com/confidential-containers/kbs/errors/AttestationError',
      detail: 'Attestation error: RCAR handshake Attest failed',
    });
    expect(reply.text).not.toContain('report data');
    kbs.attestation.status = 'contraindicated';
    const { token } = await attested();
    const denied = await call(kbs.address, resource, bearer(token));
    expect(denied.status).toBe(401);
    expect(denied.json()).toEqual({
      type: 'https://github.com/confidential-containers/kbs/errors/PolicyDeny',
      detail: 'Access denied by policy',
      code: 'POLICY_DENY',
      'correlation-id': denied.headers['x-correlation-id'],
    });
  });

  it('while an operator sees what was expected and what was found', async () => {
    kbs.attestation.status = 'warning';
    const { guest, token } = await attested();
    await call(kbs.address, resource, bearer(token));
    const decisions = await kbs.admin(`/admin/v1/decisions/${guest.correlationId}`, { role: 'auditor' });
    expect(decisions.json()['decisions']).toMatchObject([
      {},
      {},
      {
        kind: 'resource',
        outcome: 'POLICY_DENY',
        verdict: {
          expected: 'data.policy.allow is true',
          actual: 'false',
          children: [{ expected: 'affirming', actual: 'warning' }],
        },
      },
    ]);
  });
});

describe('resource policies', () => {
  it.each(['none', 'warning', 'contraindicated'])(
    'G-02, finding 3: a fresh install refuses evidence appraised as %s',
    async (status) => {
      kbs.attestation.status = status;
      const { token } = await attested();
      const reply = await call(kbs.address, resource, bearer(token));
      expect(reply.status).toBe(401);
      expect(reply.json()).toMatchObject({ code: 'POLICY_DENY' });
    },
  );

  it.each([
    ['a text', 'allow := "true"', 'POLICY_DENY'],
    ['a number', 'allow := 1', 'POLICY_DENY'],
    ['undefined', 'x := 1', 'POLICY_DENY'],
    ['a set', 'allow contains true', 'POLICY_DENY'],
    [
      'conflicting',
      'import rego.v1\nallow := true if { data.plugin == "resource" }\nallow := false if { data.plugin == "resource" }',
      'POLICY_INVALID',
    ],
    ['failing', 'allow if { 1 / 0 == 1 }', 'POLICY_INVALID'],
  ])('an allow that is %s refuses', async (_name, rule, code) => {
    const put = await kbs.admin('/admin/v1/policies/resource/odd', { method: 'PUT', body: `package policy\n${rule}` });
    expect(put.status).toBe(200);
    await kbs.admin('/admin/v1/resources/default/key/1?policy=odd', { method: 'PUT', body: secret });
    const { token } = await attested();
    expect((await call(kbs.address, resource, bearer(token))).json()).toMatchObject({ code });
  });

  it('a policy of another package refuses', async () => {
    await kbs.admin('/admin/v1/policies/resource/resource-policy', {
      method: 'PUT',
      body: 'package other\nallow := true',
    });
    const { token } = await attested();
    expect((await call(kbs.address, resource, bearer(token))).json()).toMatchObject({ code: 'POLICY_DENY' });
  });

  it('a resource whose policy was deleted is refused, it does not fall back to another one', async () => {
    await kbs.admin('/admin/v1/policies/resource/open', { method: 'PUT', body: 'package policy\nallow := true' });
    await kbs.admin('/admin/v1/resources/default/key/1?policy=open', { method: 'PUT', body: secret });
    const { token } = await attested();
    expect((await call(kbs.address, resource, bearer(token))).status).toBe(200);
    expect((await kbs.admin('/admin/v1/policies/resource/open', { method: 'DELETE' })).status).toBe(204);
    expect((await call(kbs.address, resource, bearer(token))).json()).toMatchObject({ code: 'POLICY_UNSET' });
  });

  it('see plugin, path, query and the whole payload of the token', async () => {
    const policy = `package policy
      import rego.v1
      allow if {
        data.plugin == "resource"
        data["resource-path"] == ["default", "key", "1"]
        data.query == {"a": "2", "b": " c d"}
        input.iss == "CoCo-Attestation-Service"
        input.submods.cpu0["ear.veraison.annotated-evidence"].sample.svn == "1"
      }`;
    await kbs.admin('/admin/v1/policies/resource/resource-policy', { method: 'PUT', body: policy });
    const { guest, token } = await attested();
    expect((await call(kbs.address, resource, bearer(token))).status).toBe(401);
    expect(opened(guest, await call(kbs.address, `${resource}?a=1&a=2&b=%20c+d`, bearer(token)))).toBe(secret);
  });

  it('a missing resource is 404 so that clients do not attest again, but only to whom the policy lets in', async () => {
    const { token } = await attested();
    const missing = await call(kbs.address, '/kbs/v0/resource/no/such/one', bearer(token));
    expect(missing.status).toBe(404);
    expect(missing.json()).toMatchObject({ code: 'RES_NOT_FOUND', detail: 'Plugin internal error' });
    kbs.attestation.status = 'contraindicated';
    const denied = await attested();
    expect((await call(kbs.address, '/kbs/v0/resource/no/such/one', bearer(denied.token))).status).toBe(401);
  });
});

describe('the attestation service', () => {
  it('is not believed where its token is not signed by a key it publishes, or is of another guest', async () => {
    const evaluate = kbs.attestation.evaluate.bind(kbs.attestation);
    const guest = await authenticate(kbs.address);
    kbs.attestation.evaluate = async (request) => ({
      ...(await evaluate(request)),
      token: await signPayload(newSigner(), earPayload({ ...guest.teePubKey })),
    });
    expect((await attest(kbs.address, guest)).json()).toMatchObject({ code: 'TOKEN_INVALID' });
    const other = await authenticate(kbs.address);
    kbs.attestation.evaluate = async (request) => ({
      ...(await evaluate(request)),
      token: await signPayload(kbs.attestation.signer, earPayload({ ...guest.teePubKey })),
    });
    expect((await attest(kbs.address, other)).json()).toMatchObject({ code: 'TOKEN_INVALID' });
  });
});
