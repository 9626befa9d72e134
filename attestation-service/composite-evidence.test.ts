import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canonicalJson, type JsonObject } from '@sealpod/protocol/json';
import { runtimeDataDigest } from '@sealpod/protocol/rcar';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  AttestationRefused,
  type AttestationService,
  createAttestationService,
  type EvidenceToEvaluate,
} from './index.ts';

const folder = await mkdtemp(join(tmpdir(), 'composite-'));
let storage: Storage;
let service: AttestationService;

beforeAll(async () => {
  storage = await openStorage({ path: join(folder, 'db.sqlite') });
  service = await createAttestationService({ sample: true }, { storage });
  // Any class of device is appraised, so that a refusal is the verifiers' own.
  await service.setPolicy('default_gpu', 'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2}');
});
afterAll(async () => {
  await service.close();
  await storage.close();
  await rm(folder, { recursive: true, force: true });
});

const keyOf = (machine: string) =>
  ({ kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: machine, y: machine }) as const;

/** What the device of a machine sends in a session, as additional evidence. */
function deviceOf(machine: string, nonce = 'n'): JsonObject {
  return { svn: '2', report_data: runtimeDataDigest({ nonce, teePubKey: keyOf(machine) }).toString('base64') };
}

/** The evidences of a machine's session as the key broker hands them on; `devices` is what the request brings. */
function composite(machine: string, devices: JsonObject, signedDevices = devices, nonce = 'n'): EvidenceToEvaluate[] {
  const teePubKey = keyOf(machine);
  const text = canonicalJson(devices);
  const signed = canonicalJson(signedDevices);
  const bound: JsonObject = { nonce, 'tee-pubkey': { ...teePubKey } };
  return [
    {
      tee: 'sample',
      evidence: {
        svn: '1',
        report_data: runtimeDataDigest({ nonce, teePubKey, additionalEvidence: signed }).toString('base64'),
      },
      runtimeData: { structured: { ...bound, 'additional-evidence': text } },
    },
    ...Object.entries(devices).map(([tee, evidence]) => ({ tee, evidence, runtimeData: { structured: bound } })),
  ];
}

async function outcome(evidences: EvidenceToEvaluate[]): Promise<string[]> {
  try {
    const { claims } = await service.evaluate({ evidences, policyIds: [], correlationId: 'c' });
    return Object.keys(claims.submods);
  } catch (thrown) {
    if (thrown instanceof AttestationRefused) return [thrown.code];
    throw thrown;
  }
}

describe('composite evidence', () => {
  it('of one machine makes one token with a submodule for each part', async () => {
    expect(await outcome(composite('a', { sampledevice: deviceOf('a') }))).toEqual(['cpu0', 'gpu0']);
  });

  it('never makes one verdict of parts of two machines', async () => {
    // A device of machine b, which machine a vouches for: the device is bound to b's key.
    expect(await outcome(composite('a', { sampledevice: deviceOf('b') }))).toEqual(['EV_BINDING_MISMATCH']);
    // The device put into a's request after a had spoken: a is bound to the devices that it named.
    expect(await outcome(composite('a', { sampledevice: deviceOf('a') }, {}))).toEqual(['EV_BINDING_MISMATCH']);
    // The devices taken out, or others in their place.
    const [primary] = composite('a', {}, { sampledevice: deviceOf('a') });
    expect(await outcome(primary === undefined ? [] : [primary])).toEqual(['EV_BINDING_MISMATCH']);
    // The device's answer to another challenge.
    expect(await outcome(composite('a', { sampledevice: deviceOf('a', 'earlier') }))).toEqual(['EV_BINDING_MISMATCH']);
  });

  it('names the sample in every verdict', async () => {
    const evidences = composite('a', { sampledevice: deviceOf('a') });
    const { verdict } = await service.evaluate({ evidences, policyIds: [], correlationId: 'c' });
    const parts = verdict.children?.[0]?.children?.map(({ check }) => check);
    expect(parts).toEqual(['sample evidence, which proves nothing', 'sampledevice evidence, which proves nothing']);
  });
});
