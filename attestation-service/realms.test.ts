import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { canonicalJson, type JsonObject } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { createRegoEngine } from '@sealpod/rego';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appraise } from './appraisal/appraise.ts';
import {
  type AttestationService,
  createAttestationService,
  type Evaluation,
  type EvidenceToEvaluate,
} from './index.ts';
import { type MainConfig, readMainConfig } from './main-config.ts';
import { Snapshots } from './snapshot.ts';
import { ccaEvidence, TestPlatform } from './verifiers/cca/testing/mint.ts';
import { imageHeader, imageTags, pem, revocationList, TestIbm, TestUltravisor } from './verifiers/se/testing/mint.ts';

const folder = mkdtempSync(join(tmpdir(), 'realms-'));
const platform = new TestPlatform();
let ibm: TestIbm;
let storage: Storage;
let service: AttestationService;

beforeAll(async () => {
  const at = (name: string): string => join(folder, name);
  ibm = await TestIbm.create();
  for (const name of ['hkds', 'certs', 'crls']) mkdirSync(at(name));
  writeFileSync(at('hkds/host.crt'), ibm.host.der);
  writeFileSync(at('certs/chain.pem'), pem(ibm.signer.der) + pem(ibm.authority.der));
  writeFileSync(at('crls/signer.crl'), await revocationList(ibm.signer, []));
  writeFileSync(at('root.pem'), pem(ibm.root.der));
  writeFileSync(at('hdr.bin'), imageHeader(imageTags));
  const { anchors, platforms } = platform.stores();
  const hex = (bytes: Buffer | undefined): string => bytes?.toString('hex') ?? '';
  const anchor = {
    'instance-id': hex(anchors[0]?.instanceId),
    'implementation-id': hex(anchors[0]?.implementationId),
    pkey: platform.key.publicKey.export({ format: 'jwk' }),
  };
  const reference = {
    'implementation-id': hex(platforms[0]?.implementationId),
    'platform-configuration': hex(platforms[0]?.configuration),
    'sw-components': platforms[0]?.components.map(({ measurement, signer, type }) => ({
      'measurement-value': hex(measurement),
      'signer-id': hex(signer),
      'component-type': type,
    })),
  };
  writeFileSync(at('ta.json'), JSON.stringify([anchor]));
  writeFileSync(at('rv.json'), JSON.stringify({ platform: [reference], realm: [] }));
  storage = await openStorage({ path: at('db.sqlite') });
  service = await createAttestationService(
    {
      cca: { platforms: { type: 'local', trustAnchorFile: at('ta.json'), referenceValueFile: at('rv.json') } },
      se: {
        hostKeyDocuments: at('hkds'),
        certificates: at('certs'),
        revocationLists: at('crls'),
        rootFile: at('root.pem'),
        imageHeaders: [at('hdr.bin')],
      },
      csv: { sources: [{ type: 'offline', folder }] },
      hygondcu: { sources: [{ type: 'offline', folder }] },
      now: () => new Date('2026-06-01T00:00:00Z'),
    },
    { storage },
  );
});
afterAll(async () => {
  await service.close();
  await storage.close();
  rmSync(folder, { recursive: true });
});

function evaluate(evidence: EvidenceToEvaluate): Promise<Evaluation> {
  return service.evaluate({ evidences: [evidence], policyIds: [], correlationId: 'c' });
}

function submodule({ claims }: Evaluation): { status: unknown; evidence: JsonObject } {
  const { 'ear.status': status, 'ear.veraison.annotated-evidence': evidence } = claims.submods['cpu0'] ?? {};
  return { status, evidence: (evidence ?? {}) as JsonObject };
}

describe('the service', () => {
  it('asks a guest of IBM Secure Execution, verifies its answer, and affirms it', async () => {
    const nonce = await service.challenge({ tee: 'se', tee_params: '""' });
    const structured = { nonce, 'tee-pubkey': { kty: 'EC' }, 'additional-evidence': '' };
    const digest = createHash('sha512').update(canonicalJson(structured)).digest();
    const evidence = (await TestUltravisor.of(ibm.host)).attest(nonce, digest);
    const evaluation = await evaluate({ tee: 'se', evidence, runtimeData: { structured }, hashAlgorithm: 'sha512' });
    const { status, evidence: annotated } = submodule(evaluation);
    expect(status).toBe('affirming');
    expect(annotated).toMatchObject({ se: { version: 256 }, report_data: digest.toString('hex') });
    const replayed = { nonce: await service.challenge({ tee: 'se' }), 'tee-pubkey': { kty: 'EC' } };
    await expect(
      evaluate({ tee: 'se', evidence, runtimeData: { structured: replayed }, hashAlgorithm: 'sha512' }),
    ).rejects.toMatchObject({ code: 'EV_NONCE_MISMATCH' });
  });

  it('affirms an Arm realm only once its measurement is known', async () => {
    const reportData = randomBytes(48);
    const token = platform.token(regularise(reportData, 64), Buffer.alloc(64));
    const evidence = { tee: 'cca', evidence: ccaEvidence(token), runtimeData: { raw: reportData } } as const;
    const unknown = submodule(await evaluate(evidence));
    expect(unknown.status).toBe('warning');
    expect(unknown.evidence).toMatchObject({ cca: { sealpod: { realm_appraisal: 'unrecognized' } } });
    await service.setReferenceValue('cca_realm_initial_measurement', [platform.initialMeasurement.toString('base64')]);
    const known = await evaluate(evidence);
    expect(submodule(known).status).toBe('affirming');
    expect(known.claims.submods['cpu0']?.['ear.trustworthiness-vector']).toMatchObject({
      executables: 3,
      hardware: 2,
      configuration: 2,
    });
  });

  it('has a policy for each class of these TEEs', async () => {
    const ids = (await service.listPolicies()).map(({ id }) => id);
    expect(ids).toEqual(expect.arrayContaining(['default_cpu', 'default_dcu']));
    await expect(evaluate({ tee: 'csv', evidence: {} })).rejects.toMatchObject({ code: 'EV_FORMAT' });
    await expect(evaluate({ tee: 'hygondcu', evidence: {} })).rejects.toMatchObject({ code: 'EV_FORMAT' });
  });
});

describe('default policies', () => {
  const vector = async (teeClass: string, evidence: JsonObject): Promise<JsonObject> => {
    const rego = createRegoEngine();
    try {
      const snapshot = await new Snapshots(storage).current();
      const now = new Date('2026-06-01T00:00:00Z');
      const { appraisal } = await appraise(rego, snapshot, { policyId: 'default', teeClass, evidence, now });
      const { executables, hardware, configuration } = appraisal['ear.trustworthiness-vector'];
      return { executables: executables ?? null, hardware: hardware ?? null, configuration: configuration ?? null };
    } finally {
      await rego.close();
    }
  };
  const policy = { nodbg: 1, es: 1 };
  const report = { version: '2', measure: 'aa', build: 7, policy };

  it('affirm a Hygon guest whose launch digest and firmware are known, and cannot be debugged', async () => {
    const unknown = await vector('cpu', { csv: report });
    expect(unknown).toEqual({ executables: 33, hardware: 97, configuration: 2 });
    await service.setReferenceValue('csv_measure', ['aa']);
    await service.setReferenceValue('csv_build', [7]);
    expect(await vector('cpu', { csv: report })).toEqual({ executables: 3, hardware: 2, configuration: 2 });
    expect(await vector('cpu', { csv: { ...report, build: 6 } })).toMatchObject({ hardware: 97 });
    expect(await vector('cpu', { csv: { ...report, measure: 'ab' } })).toMatchObject({ executables: 33 });
    for (const open of [{ nodbg: 0 }, { es: 0 }])
      expect(await vector('cpu', { csv: { ...report, policy: { ...policy, ...open } } })).toMatchObject({
        configuration: 36,
      });
  });

  it('affirm an accelerator whose measurement is known', async () => {
    const evidence = { hygondcu: { body: { measure: 'bb' } } };
    expect(await vector('dcu', evidence)).toEqual({ executables: 33, hardware: 2, configuration: 2 });
    await service.setReferenceValue('dcu_measure', ['bb']);
    expect(await vector('dcu', evidence)).toEqual({ executables: 3, hardware: 2, configuration: 2 });
  });

  it('affirm a realm that a Veraison service approved, and no platform in debug', async () => {
    const realm = { 'cca-realm-initial-measurement': 'unknown' };
    const appraised = (executables: number, platform_lifecycle = 'secured'): JsonObject => ({
      cca: { realm, sealpod: { appraised_by: 'service', realm_trust_vector: { executables }, platform_lifecycle } },
    });
    expect(await vector('cpu', appraised(2))).toEqual({ executables: 3, hardware: 2, configuration: 2 });
    expect(await vector('cpu', appraised(99))).toMatchObject({ executables: 33 });
    expect(await vector('cpu', appraised(2, 'non-cca-platform-rot-debug'))).toMatchObject({ configuration: 36 });
  });
});

describe('the configuration file', () => {
  it('names these TEEs, their paths relative to it', () => {
    const file = join(folder, 'config.json');
    const members = {
      cca: { platforms: { type: 'local', trustAnchorFile: 'ta.json', referenceValueFile: 'rv.json' } },
      csv: { sources: [{ type: 'service' }] },
      hygondcu: { sources: [{ type: 'offline', folder: 'hygon' }] },
      se: {
        hostKeyDocuments: 'hkds',
        certificates: 'certs',
        revocationLists: 'crls',
        rootFile: 'root.pem',
        imageHeaders: ['hdr.bin'],
      },
      tpm: { roots: [], requireTrustedKey: true },
    };
    const write = (change: object): MainConfig => {
      const base = { storage: 'db', listen: '127.0.0.1:0', openAdministration: true };
      writeFileSync(file, JSON.stringify({ ...base, ...members, ...change }));
      return readMainConfig(file);
    };
    expect(write({}).service).toMatchObject({
      cca: { platforms: { trustAnchorFile: join(folder, 'ta.json') } },
      csv: { sources: [{ type: 'service' }] },
      hygondcu: { sources: [{ type: 'offline', folder: join(folder, 'hygon') }] },
      se: { imageHeaders: [join(folder, 'hdr.bin')] },
      tpm: { requireTrustedKey: true },
    });
    for (const name of Object.keys(members))
      expect(() => write({ [name]: { unknown: 1 } }), name).toThrow(SealpodError);
  });
});
