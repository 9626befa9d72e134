import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { signAdminToken } from '@sealpod/kbs-client/token';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseKbsConfig } from '../config.ts';
import { createKbs, type Kbs } from '../kbs.ts';
import { call, type Reply } from '../testing/client.ts';

const directory = mkdtempSync(join(tmpdir(), 'sealpod-kbs-candidates-'));
const keys = { ada: generateKeyPairSync('ed25519'), grace: generateKeyPairSync('ed25519') };
let kbs: Kbs;

async function start(referenceValues: object): Promise<void> {
  const files = Object.entries(keys).map(([name, { publicKey }]) => {
    const publicKeyFile = join(directory, `${name}.pem`);
    writeFileSync(publicKeyFile, publicKey.export({ type: 'spki', format: 'pem' }));
    return { publicKeyFile };
  });
  const config = {
    listen: { host: '127.0.0.1', port: 0 },
    dataDirectory: 'data',
    insecureHttp: true,
    admin: { keys: files },
    attestationService: { type: 'builtin', sample: true, referenceValues },
  };
  kbs = await createKbs(parseKbsConfig(config as never, directory), { log: pino({ level: 'silent' }) });
}
beforeAll(() => start({ approvals: 2 }));
afterAll(async () => {
  await kbs.close(200);
  rmSync(directory, { recursive: true, force: true });
});

const as = async (
  who: keyof typeof keys,
  method: string,
  target: string,
  body?: object,
  role: 'owner' | 'auditor' | 'operator' = 'owner',
): Promise<Reply> => {
  const token = await signAdminToken({ privateKey: keys[who].privateKey, role, subject: who, ttlSeconds: 60 });
  return call(kbs.address, target, {
    method,
    headers: { authorization: `Bearer ${token}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
};
const root = '/admin/v1/reference-value-candidates';

describe('candidates of reference values', () => {
  it('go from quarantine into use by two administrators, each step on record with who took it', async () => {
    const direct = await as('ada', 'PUT', '/admin/v1/reference-values/svn', { value: ['1'] });
    expect(direct.status).toBe(409);
    expect(direct.json()).toMatchObject({ code: 'RV_QUARANTINED' });
    const learned = await as('ada', 'POST', root, { values: { svn: ['1'] }, source: 'release 1' });
    expect(learned.status).toBe(200);
    expect(learned.json()).toMatchObject({ state: 'quarantined', origin: { kind: 'given', source: 'release 1' } });
    const id = String(learned.json()['id']);
    expect((await as('ada', 'GET', `${root}/${id}`)).json()).toMatchObject({
      differences: [{ id: 'svn', change: 'new', added: ['1'] }],
      approvals: { have: 0, need: 2 },
    });
    await as('ada', 'POST', `${root}/${id}/approve`);
    await as('ada', 'POST', `${root}/${id}/approve`, undefined, 'operator');
    expect((await as('ada', 'POST', `${root}/${id}/promote`)).json()).toMatchObject({
      code: 'RV_QUARANTINED',
      expected: '2 different administrators',
      actual: '1',
    });
    expect((await as('grace', 'POST', `${root}/${id}/approve`)).json()).toMatchObject({ state: 'approved' });
    expect((await as('grace', 'POST', `${root}/${id}/promote`, { mode: 'replace' })).json()).toMatchObject({
      state: 'promoted',
    });
    expect((await as('ada', 'GET', '/admin/v1/reference-values/svn')).json()).toMatchObject({
      value: ['1'],
      provenance: {
        kind: 'promoted',
        candidate: id,
        approvals: [{ by: { subject: 'ada' } }, { by: { subject: 'grace' } }],
      },
    });
    expect((await as('ada', 'POST', `${root}/${id}/retire`)).json()).toMatchObject({ state: 'retired' });
    expect((await as('ada', 'GET', '/admin/v1/reference-values/svn')).status).toBe(404);
    const { decisions } = (await as('ada', 'GET', '/admin/v1/decisions?limit=100')).json() as {
      decisions: { action: string; outcome: string; target: string; subject: { administrator: string } }[];
    };
    const done = decisions.filter(({ outcome, target }) => outcome === 'OK' && target === id).toReversed();
    expect(done.map(({ action, subject }) => `${action} by ${subject.administrator}`)).toEqual([
      'LEARN reference values by ada',
      'APPROVE reference values by ada',
      'APPROVE reference values by ada',
      'APPROVE reference values by grace',
      'PROMOTE reference values by grace',
      'RETIRE reference values by ada',
    ]);
    expect((await as('ada', 'GET', root)).json()['candidates']).toMatchObject([{ id }]);
  });

  it.each([
    ['POST', root, {}, 400, 'REQUEST_FORMAT'],
    ['POST', root, { values: { svn: 1 }, more: 1 }, 400, 'REQUEST_FORMAT'],
    ['POST', root, { values: [] }, 400, 'REQUEST_FORMAT'],
    ['POST', root, { evidence: {} }, 400, 'REQUEST_FORMAT'],
    ['POST', root, { evidence: { tee: 'snp' } }, 404, 'NOT_FOUND'],
    ['GET', `${root}/absent`, undefined, 404, 'NOT_FOUND'],
    ['POST', `${root}/absent/approve`, undefined, 404, 'NOT_FOUND'],
    ['POST', `${root}/absent/promote`, { mode: 'whatever' }, 400, 'REQUEST_FORMAT'],
    ['POST', `${root}/absent/constructor`, undefined, 404, 'NOT_FOUND'],
    ['POST', `${root}/absent/approve`, { mode: 'add' }, 400, 'REQUEST_FORMAT'],
  ])('%s %s %j is refused', async (method, target, body, status, code) => {
    const reply = await as('ada', method, target, body);
    expect(reply.json()).toMatchObject({ code });
    expect(reply.status).toBe(status);
  });

  it('are not for auditors', async () => {
    for (const [method, target] of [
      ['GET', root],
      ['POST', root],
      ['POST', `${root}/x/approve`],
    ] as const)
      expect((await as('ada', method, target, undefined, 'auditor')).json()).toMatchObject({ code: 'ADMIN_ROLE' });
  });
});

describe('attestation policies', () => {
  it('are checked without being stored', async () => {
    const check = (policy: string): Promise<Reply> =>
      as('ada', 'POST', '/admin/v1/policies/check', { id: 'mine_cpu', policy });
    const good = await check(
      'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2} if 1 in query_reference_value("a")',
    );
    expect(good.json()).toMatchObject({ referenceValueIds: ['a'], dryRuns: [] });
    const bad = await check(
      'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2} if { input.x; http.send({}) }',
    );
    expect(bad.status).toBe(400);
    expect(bad.json()).toMatchObject({ code: 'POLICY_INVALID', actual: 'http.send' });
    const stored = await as('ada', 'GET', '/admin/v1/policies/attestation/mine_cpu');
    expect(stored.status).toBe(404);
  });

  it('are tried with reference values that are given, and only on evidence that there is', async () => {
    const policy = 'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2} if 1 in query_reference_value("a")';
    const body = { kind: 'attestation', policy, input: {}, referenceValues: { a: [1] } };
    const reply = await as('ada', 'POST', '/admin/v1/policies/test', body);
    expect(reply.json()).toMatchObject({
      values: { 'data.policy.trust_claims': { hardware: 2 } },
      referenceValueIds: ['a'],
    });
    const absent = await as('ada', 'POST', '/admin/v1/policies/test', {
      kind: 'attestation',
      policy,
      evidence: { tee: 'snp' },
    });
    expect(absent.json()).toMatchObject({ code: 'NOT_FOUND' });
  });
});
