import { createHash } from 'node:crypto';
import { statusOf, type TrustVector } from '@sealpod/protocol/ear';
import type { JsonValue } from '@sealpod/protocol/json';
import { failures } from '@sealpod/protocol/verdict';
import { createRegoEngine } from '@sealpod/rego';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { builtInPolicies } from '../../policy/built-in.ts';
import { type NvidiaRules, nvidiaVerifier } from './index.ts';
import {
  deviceEvidence,
  listRules,
  measurementOf,
  mintReport,
  nvidiaRules,
  revocationList,
  type TestDevice,
  type TestNvidia,
  testDevice,
  testNvidia,
} from './testing/mint.ts';

const rego = createRegoEngine();
afterAll(() => rego.close());
const now = new Date('2026-06-01T00:00:00Z');
const reportData = Buffer.alloc(48, 3);
const nonce = reportData.subarray(0, 32);
const versions = { allowed_driver_versions: ['570.10'], allowed_vbios_versions: ['96.00.9F.00.01'] };
let nvidia: TestNvidia;
let gpu: TestDevice;

beforeAll(async () => {
  nvidia = await testNvidia();
  gpu = await testDevice(nvidia);
});

/** Verifies evidence of the test's GPU, and appraises the claims with the policy that comes with the release. */
async function appraised(
  rules: Partial<NvidiaRules>,
  referenceValues: Readonly<Record<string, JsonValue>> = versions,
  measurements?: ReadonlyMap<number, Buffer>,
  withManifests = true,
) {
  const { root, manifests } = nvidiaRules(nvidia);
  const verifier = nvidiaVerifier({ root, ...(withManifests ? { manifests } : {}), ...rules });
  const report = mintReport(gpu, { nonce, ...(measurements === undefined ? {} : { measurements }) });
  const evidence = { device_evidence_list: [deviceEvidence(report, gpu.chain)] };
  const { verdict, submodules } = await verifier.verify(evidence, { reportData, trustedAttestationKeys: [], now });
  const [device] = submodules ?? [];
  const { values } = await rego.evaluate({
    policy: builtInPolicies['default_gpu'] ?? '',
    rules: ['data.policy.trust_claims'],
    input: { nvidia: device?.claims ?? {} },
    data: {},
    functions: { query_reference_value: referenceValues },
  });
  return {
    refused: failures(verdict).map(({ check, code }) => `${check}: ${code}`),
    status: statusOf(values['data.policy.trust_claims'] as TrustVector),
    vector: values['data.policy.trust_claims'],
  };
}
const good: Pick<NvidiaRules, 'revocation'> = { revocation: async () => ({ status: 'good' }) };
/** The trust vector with what it says of executables, hardware and configuration. */
const vector = (executables: number, hardware: number, configuration: number): unknown =>
  expect.objectContaining({ executables, hardware, configuration });

describe('default_gpu on locally verified evidence', () => {
  it('affirms a GPU that matches its manifests, is not revoked, and runs known versions', async () => {
    expect(await appraised(good)).toEqual({ refused: [], status: 'affirming', vector: vector(3, 2, 2) });
  });

  it('affirms by revocation lists where no OCSP responder is asked, and not without either', async () => {
    const revocationLists = listRules({
      '/crl/l1-root.crl': await revocationList(nvidia.root),
      '/crl/corim-l1.crl': await revocationList(nvidia.manifestRoot),
    });
    expect(await appraised({ revocationLists })).toMatchObject({ refused: [], status: 'affirming' });
    expect(await appraised({})).toEqual({ refused: [], status: 'contraindicated', vector: vector(33, 97, 2) });
  });

  it.each([1, 2, 3, 10, 35])('refuses one whose measurement %i differs from its manifest', async (index) => {
    const measurements = new Map(Array.from({ length: 40 }, (_, at) => [at + 1, measurementOf(at + 1)]));
    measurements.set(index + 1, createHash('sha384').update('another').digest());
    const found = await appraised(good, versions, measurements);
    expect(found.refused).toEqual([`measurement ${index + 1} (Measurement_${index}): RV_MISMATCH`]);
    // No token is made of a refused verdict; were one made, it would not affirm.
    expect([found.status, found.vector]).toEqual(['contraindicated', vector(33, 97, 36)]);
  });

  it('does not affirm where nothing was held against manifests, or a version is not known', async () => {
    expect(await appraised(good, versions, undefined, false)).toEqual({
      refused: [],
      status: 'contraindicated',
      vector: vector(33, 97, 36),
    });
    for (const [values, expected] of [
      [{}, vector(3, 2, 36)],
      [{ ...versions, allowed_driver_versions: ['570.11'] }, vector(3, 2, 36)],
      [{ ...versions, allowed_vbios_versions: [] }, vector(3, 2, 36)],
    ] as const) {
      const found = await appraised(good, values);
      expect([found.status === 'affirming', found.vector]).toEqual([false, expected]);
    }
  });
});
