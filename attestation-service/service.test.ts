import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject } from '@sealpod/protocol/json';
import { runtimeDataDigest } from '@sealpod/protocol/rcar';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures, passed } from '@sealpod/protocol/verdict';
import { openStorage, type Storage } from '@sealpod/storage';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  AttestationRefused,
  type AttestationService,
  type AttestationServiceConfig,
  builtInPolicies,
  createAttestationService,
  type EvidenceToEvaluate,
} from './index.ts';

const folder = await mkdtemp(join(tmpdir(), 'attestation-service-'));
let storage: Storage;
let service: AttestationService;
let number = 0;

async function open(config: AttestationServiceConfig = { sample: true }, at?: string): Promise<void> {
  number += 1;
  storage = await openStorage({ path: at ?? join(folder, `${number}`, 'db.sqlite') });
  service = await createAttestationService(config, { storage });
}

interface RecordedEvidence {
  readonly tee: string;
  readonly evidence: string;
  readonly runtime_data?: { readonly raw?: string; readonly structured?: JsonObject };
  readonly init_data?: { readonly init_data_toml?: string; readonly init_data_digest?: string };
  readonly runtime_data_hash_algorithm?: string;
}

const teePubKey = { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: 'x', y: 'y' } as const;
const runtimeData = { nonce: 'n', teePubKey, additionalEvidence: '' };
const sample = (overrides: Partial<EvidenceToEvaluate> = {}): EvidenceToEvaluate => ({
  tee: 'sample',
  evidence: { svn: '1', report_data: runtimeDataDigest(runtimeData).toString('base64') },
  runtimeData: { structured: { nonce: 'n', 'tee-pubkey': teePubKey, 'additional-evidence': '' } },
  ...overrides,
});
const administrator = { subject: 'owner', key: 'k' };
const evaluate = (...evidences: EvidenceToEvaluate[]) =>
  service.evaluate({ evidences, policyIds: [], correlationId: 'c-1' });
const refusal = async (...evidences: EvidenceToEvaluate[]): Promise<AttestationRefused> => {
  const thrown: unknown = await evaluate(...evidences).catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(AttestationRefused);
  return thrown as AttestationRefused;
};

beforeAll(() => open());
afterAll(async () => {
  await service.close();
  await storage.close();
  await rm(folder, { recursive: true, force: true });
});
async function fresh(config?: AttestationServiceConfig): Promise<void> {
  await service.close();
  await storage.close();
  await open(config);
}

describe('sample evidence', () => {
  beforeEach(() => fresh());

  it("makes the token that upstream's service makes, beside jti, kid, dates", async (context) => {
    const file = vectorPath('recorded/rest-as/attestation.json');
    if (!existsSync(file)) context.skip(`no recorded exchanges at ${file}`);
    const { exchanges } = JSON.parse(readFileSync(file, 'utf8'));
    let compared = 0;
    for (const { request, token_decoded: recorded } of exchanges) {
      if (recorded === undefined || request.body_utf8 === undefined) continue;
      const body = JSON.parse(request.body_utf8);
      const evidences: EvidenceToEvaluate[] = body.verification_requests.map((one: RecordedEvidence) => ({
        tee: one.tee,
        evidence: JSON.parse(Buffer.from(one.evidence, 'base64url').toString()),
        ...(one.runtime_data?.structured ? { runtimeData: { structured: one.runtime_data.structured } } : {}),
        ...(one.runtime_data?.raw ? { runtimeData: { raw: Buffer.from(one.runtime_data.raw, 'base64url') } } : {}),
        ...(one.init_data?.init_data_toml ? { initData: { toml: one.init_data.init_data_toml } } : {}),
        ...(one.init_data?.init_data_digest
          ? { initData: { digest: Buffer.from(one.init_data.init_data_digest, 'base64url') } }
          : {}),
        ...(one.runtime_data_hash_algorithm ? { hashAlgorithm: one.runtime_data_hash_algorithm.toLowerCase() } : {}),
      }));
      if (evidences.some(({ tee, hashAlgorithm }) => tee !== 'sample' || (hashAlgorithm as string) === 'sm3')) continue;
      const { claims, token } = await service.evaluate({ evidences, policyIds: body.policy_ids, correlationId: 'c-1' });
      expect(claims.submods, request.body_utf8).toEqual(recorded.payload.submods);
      expect(JSON.stringify(claims.submods)).toBe(JSON.stringify(recorded.payload.submods));
      expect(Object.keys(claims)).toEqual([...Object.keys(recorded.payload), 'jti']);
      expect({ ...claims, ...{ iat: 0, exp: 0, jti: '' } }).toEqual({
        ...recorded.payload,
        ...{ iat: 0, exp: 0, jti: '' },
      });
      const header = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString());
      expect(Object.keys(header)).toEqual([...Object.keys(recorded.header), 'kid']);
      expect(Object.keys(header.jwk)).toEqual(Object.keys(recorded.header.jwk));
      compared += 1;
    }
    expect(compared).toBeGreaterThan(5);
  });

  it('G-02: is contraindicated without reference values, affirming with them, and the explanation names them', async () => {
    const { claims, verdict, policyVersions } = await evaluate(sample());
    expect(claims.submods['cpu0']?.['ear.status']).toBe('contraindicated');
    expect(claims.submods['cpu0']?.['ear.trustworthiness-vector']).toMatchObject({
      executables: 33,
      hardware: 97,
      configuration: 2,
    });
    expect(failures(verdict).map(({ code, check }) => `${code} ${check}`)).toEqual([
      'RV_NOT_LOADED launch_digest',
      'RV_NOT_LOADED svn',
      'POLICY_DENY policy default_cpu',
    ]);
    expect(policyVersions).toHaveProperty('default_cpu');

    await service.registerReferenceValues(
      JSON.stringify({
        version: '0.1.0',
        type: 'sample',
        payload: Buffer.from(
          JSON.stringify({ launch_digest: ['abcde'], svn: ['1'], major_version: 1, minimum_minor_version: 1 }),
        ).toString('base64'),
      }),
      administrator,
    );
    const affirmed = await evaluate(sample());
    expect(affirmed.claims.submods['cpu0']?.['ear.status']).toBe('affirming');
    expect(passed(affirmed.verdict)).toBe(true);
    expect(Object.values(affirmed.referenceValueVersions).every((version) => version > 0)).toBe(true);

    await service.deleteReferenceValue('minimum_minor_version');
    expect((await evaluate(sample())).claims.submods['cpu0']?.['ear.status']).toBe('contraindicated');
  });

  it('signs with the published key; every replica and every start has the same', async () => {
    const { token } = await evaluate(sample());
    const { payload, protectedHeader } = await jwtVerify(token, createLocalJWKSet((await service.jwks()) as never));
    expect(payload.jti).toBe('c-1');
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(300);
    expect(protectedHeader.kid).toMatch(/^[\w-]{43}$/);
    const replica = await createAttestationService({ sample: true }, { storage });
    expect(await replica.jwks()).toEqual(await service.jwks());
    await replica.close();
  });

  it('refuses evidence for another session, of another shape, and of a TEE that is not enabled, with the verdict', async () => {
    const other = await refusal(
      sample({ runtimeData: { structured: { nonce: 'other', 'tee-pubkey': teePubKey, 'additional-evidence': '' } } }),
    );
    expect(other.code).toBe('EV_BINDING_MISMATCH');
    expect(failures(other.verdict)).toHaveLength(1);
    expect(other.evidenceDigest).toMatch(/^[0-9a-f]{64}$/);
    expect((await refusal(sample({ evidence: { svn: 1 } }))).code).toBe('EV_FORMAT');
    expect((await refusal(sample({ tee: 'snp' }))).code).toBe('EV_TEE_UNSUPPORTED');
    expect((await refusal(sample({ initData: { toml: 'version = 1' } }))).code).toBe('INITDATA_SCHEMA');
    await expect(service.evaluate({ evidences: [], policyIds: [], correlationId: '' })).rejects.toMatchObject({
      code: 'REQUEST_FORMAT',
    });
    await fresh({});
    expect((await refusal(sample())).code).toBe('EV_TEE_UNSUPPORTED');
    await expect(service.challenge({ tee: 'sample', tee_params: '' })).rejects.toMatchObject({
      code: 'EV_TEE_UNSUPPORTED',
    });
  });

  it('shows initdata to the policy as upstream does', async () => {
    const toml = `version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"aa.toml" = "[token_configs.kbs]\\nurl = \\"https://kbs\\"\\n"\n"policy.rego" = '''package agent_policy
policy_data := {"containers":[{"OCI":{"Annotations":{"io.kubernetes.cri.image-name":"i"},"Process":{"User":{"UID":7}}}}]}'''\nother = "["\n`;
    const { claims } = await evaluate(sample({ initData: { toml } }));
    const submodule = claims.submods['cpu0'];
    expect(submodule?.['ear.veraison.annotated-evidence']['init_data_claims']).toEqual({
      'aa.toml': { token_configs: { kbs: { url: 'https://kbs' } } },
      agent_policy_claims: {
        containers: [{ OCI: { Annotations: { 'io.kubernetes.cri.image-name': 'i' }, Process: { User: { UID: 7 } } } }],
      },
      other: '[',
    });
    expect(submodule?.['ear.trustee.identifiers']).toEqual({
      validated: { container_images: ['i'], container_uids: [7] },
    });
  });
});

describe('policies', () => {
  beforeEach(() => fresh());
  const policy = (body: string): string => `package policy\nimport rego.v1\n${body}\n`;
  const under = async (body: string) => {
    await service.setPolicy('mine_cpu', policy(body));
    return service.evaluate({ evidences: [sample()], policyIds: ['mine', 'ignored'], correlationId: 'c' });
  };

  it('refuses where none is set: unknown, or a built-in that was deleted, also after a restart', async () => {
    await expect(
      service.evaluate({ evidences: [sample()], policyIds: ['absent'], correlationId: 'c' }),
    ).rejects.toMatchObject({ code: 'POLICY_UNSET' });
    expect(await service.deletePolicy('default_cpu')).toBe(true);
    expect(await service.deletePolicy('default_cpu')).toBe(false);
    const replica = await createAttestationService({ sample: true }, { storage });
    expect(await replica.getPolicy('default_cpu')).toBeUndefined();
    await expect(replica.evaluate({ evidences: [sample()], policyIds: [], correlationId: 'c' })).rejects.toMatchObject({
      code: 'POLICY_UNSET',
    });
    await replica.close();
  });

  it('keeps what an operator stored over the built-in text, and lists with digest', async () => {
    const text = policy('trust_claims := {"hardware": 2}');
    await service.setPolicy('default_cpu', text);
    const replica = await createAttestationService({ sample: true }, { storage });
    expect(await replica.getPolicy('default_cpu')).toMatchObject({ policy: text });
    await replica.close();
    expect((await service.listPolicies()).map(({ id }) => id)).toEqual(Object.keys(builtInPolicies).toSorted());
    expect((await evaluate(sample())).claims.submods['cpu0']?.['ear.status']).toBe('affirming');
  });

  it('sees at once what another replica stored', async () => {
    const replica = await createAttestationService({ sample: true }, { storage });
    await evaluate(sample());
    await replica.setPolicy('default_cpu', policy('trust_claims := {"hardware": 2}'));
    expect((await evaluate(sample())).claims.submods['cpu0']?.['ear.status']).toBe('affirming');
    await replica.close();
  });

  it('G-26: refuses policies that do not compile, reach outside, or answer what no token can carry', async () => {
    await expect(service.setPolicy('x_cpu', 'package policy\nallow if {')).rejects.toMatchObject({
      code: 'POLICY_INVALID',
    });
    await expect(
      under('trust_claims := http.send({"method": "get", "url": "http://127.0.0.1"})'),
    ).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await expect(under('trust_claims := {"luck": 2}')).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await expect(under('trust_claims := {"hardware": "2"}')).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await expect(under('trust_claims := {"hardware": 300}')).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await expect(under('trust_claims := {}')).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await expect(
      under('trust_claims := {"hardware": 2}\nextensions := [{"name": "ear.status", "key": 1, "value": "affirming"}]'),
    ).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await expect(
      under(
        'trust_claims := {"hardware": 2}\nextensions := [{"name": "a", "key": 1, "value": 1}, {"name": "b", "key": 1, "value": 1}]',
      ),
    ).rejects.toMatchObject({ code: 'POLICY_INVALID' });
  });

  it('a policy that answers nothing says none, which affirms nothing', async () => {
    const { claims, verdict } = await under('trust_claims := {"hardware": 2} if input.tpm');
    expect(claims.submods['cpu0']?.['ear.status']).toBe('none');
    expect(failures(verdict).map(({ code }) => code)).toEqual(['POLICY_DENY']);
  });

  it.each(['', '..', '.x', '/x', 'a//b', '../x', 'a/../b', 'a b', 'é', 'x'.repeat(300)])(
    'G-24: refuses the id %j',
    async (id) => {
      await expect(service.setPolicy(id, policy('trust_claims := {}'))).rejects.toMatchObject({
        code: 'REQUEST_FORMAT',
      });
      await expect(service.setReferenceValue(id, ['a'])).rejects.toMatchObject({ code: 'REQUEST_FORMAT' });
    },
  );
});

describe('reference values', () => {
  beforeEach(() => fresh());

  it('are versioned, listed, deleted', async () => {
    const first = await service.setReferenceValue('a', ['1']);
    const second = await service.setReferenceValue('a', ['2']);
    expect(second.version).toBeGreaterThan(first.version);
    await service.deleteReferenceValue('a');
    expect(await service.getReferenceValue('a')).toBeUndefined();
    const third = await service.setReferenceValue('a', { any: 1 });
    expect(third.version).toBeGreaterThan(second.version);
    expect(await service.listReferenceValues()).toEqual([third]);
    expect(await service.deleteReferenceValue('b')).toBe(false);
  });

  it('expire: are not used, and the explanation says so', async () => {
    await service.setReferenceValue('launch_digest', ['abcde'], { expiresAt: '2020-01-01T00:00:00Z' });
    const { claims, verdict } = await evaluate(sample());
    expect(claims.submods['cpu0']?.['ear.trustworthiness-vector'].executables).toBe(33);
    expect(failures(verdict)[0]).toMatchObject({ code: 'RV_EXPIRED', check: 'launch_digest' });
    await expect(service.setReferenceValue('a', 1, { expiresAt: 'tomorrow' })).rejects.toMatchObject({
      code: 'REQUEST_FORMAT',
    });
  });

  it('of a message: all or none, for twelve months', async () => {
    const message = (payload: unknown, more = {}): string =>
      JSON.stringify({
        version: '0.1.0',
        type: 'sample',
        payload: Buffer.from(JSON.stringify(payload)).toString('base64'),
        ...more,
      });
    await expect(
      service.registerReferenceValues(message({ good: 1, '../bad': 2 }), administrator),
    ).rejects.toMatchObject({
      code: 'REQUEST_FORMAT',
    });
    expect(await service.listReferenceValues()).toEqual([]);
    await service.registerReferenceValues(message({ good: 1 }), administrator);
    const stored = await service.getReferenceValue('good');
    const days = (Date.parse(stored?.expiresAt ?? '') - Date.now()) / 86_400_000;
    expect(days).toBeGreaterThan(364);
    expect(days).toBeLessThan(367);
    await expect(service.registerReferenceValues(message({}, { version: '9' }))).rejects.toMatchObject({
      code: 'REQUEST_FORMAT',
    });
    await expect(service.registerReferenceValues(message({}, { type: 'swid' }))).rejects.toMatchObject({
      code: 'UNSUPPORTED',
    });
    await expect(service.registerReferenceValues(message([]), administrator)).rejects.toMatchObject({
      code: 'REQUEST_FORMAT',
    });
    await expect(service.registerReferenceValues('{')).rejects.toMatchObject({ code: 'REQUEST_FORMAT' });
  });
});
