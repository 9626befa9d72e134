import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CborValue, encodeCbor } from '@sealpod/protocol/cose';
import { cborTagged } from '@sealpod/protocol/cose/testing';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures } from '@sealpod/protocol/verdict';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { Verification, Verifier } from '../verifier.ts';
import { readCcaConfig } from './config.ts';
import { ccaPlatforms, ccaVerifier } from './index.ts';
import { type CcaStores, fileStores } from './stores.ts';
import { ccaEvidence, type MintFaults, TestPlatform } from './testing/mint.ts';

const platform = new TestPlatform();
const reportData = randomBytes(48);
const initDataDigest = randomBytes(32);
const expectations = { reportData, initDataDigest, trustedAttestationKeys: [], now: new Date('2026-06-01T00:00:00Z') };

function under(stores: Partial<CcaStores> = {}, allowNonCcaDebug = false): Verifier {
  return ccaVerifier({ allowNonCcaDebug }, { stores: () => platform.stores(stores) });
}

function mint(faults: MintFaults = {}): Buffer {
  return platform.token(regularise(reportData, 64), regularise(initDataDigest, 64), faults);
}

async function verified(value: JsonValue, by = under(), against: object = expectations): Promise<Verification> {
  return by.verify(value, against as typeof expectations);
}

/** Codes of the checks that failed, and the code of an exception where there is one. */
async function refusals(value: JsonValue, by?: Verifier, against?: object): Promise<string[]> {
  try {
    const { verdict } = await verified(value, by, against);
    return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError)) throw thrown;
    return [`thrown: ${thrown.code}`];
  }
}

describe('a CCA token', () => {
  it.each(['first', '2023', '2024'] as const)('of profile %s verifies', async (profile) => {
    const evidence = ccaEvidence(mint({ profile }));
    const { verdict, claims } = await verified(evidence);
    expect(failures(verdict)).toEqual([]);
    expect(claims['sealpod']).toMatchObject({
      appraised_by: 'stores',
      realm_appraisal: 'approved-runtime',
      platform_lifecycle: 'secured',
      realm_memory_encryption_policy: profile === '2024' ? 'private' : null,
    });
  });

  it('has upstream’s claims', async () => {
    const { claims } = await verified(ccaEvidence(mint()));
    const { sealpod, ...upstream } = claims;
    expect(sealpod).toBeDefined();
    expect(upstream).toEqual({
      platform: {
        'cca-platform-instance-id': platform.instanceId.toString('base64'),
        'cca-platform-implementation-id': platform.implementationId.toString('base64'),
      },
      realm: {
        'cca-realm-challenge': regularise(reportData, 64).toString('base64'),
        'cca-realm-personalization-value': regularise(initDataDigest, 64).toString('base64'),
        'cca-realm-initial-measurement': platform.initialMeasurement.toString('base64'),
        'cca-realm-extensible-measurements': platform.extensibleMeasurements.map((value) => value.toString('base64')),
        'cca-realm-hash-algo-id': 'sha-512',
      },
      report_data: regularise(reportData, 64).toString('hex'),
      init_data: regularise(initDataDigest, 64).toString('hex'),
    });
  });

  it('may name other hashes, have claims that nobody knows, and its realm’s key in either form', async () => {
    const sha512 = (bytes: Buffer): Buffer => createHash('sha512').update(bytes).digest();
    const { x = '', y = '' } = platform.realmKey.publicKey.export({ format: 'jwk' });
    const coordinates = [x, y].map((part) => Buffer.from(part, 'base64url'));
    const coseKey = encodeCbor(
      new Map<CborValue, CborValue>([
        [1, 2],
        [2, Buffer.from('kid')],
        [3, -35],
        [-1, 2],
        [-2, coordinates[0] ?? null],
        [-3, coordinates[1] ?? null],
      ]),
    );
    const point = Buffer.concat([Buffer.from([4]), ...coordinates]);
    for (const [profile, key] of [
      ['first', coseKey],
      ['first', point],
      ['2023', point],
      ['2024', coseKey],
    ] as const) {
      const token = mint({
        profile,
        realm: (claims) =>
          void claims.set(44237, key).set(44240, 'sha-512').set(44236, 'sha-256').set(44299, 'a claim to come'),
        platform: (claims) =>
          void claims
            .set(10, sha512(key))
            .set(2402, 'sha-512')
            .set(2403, Buffer.from('manufacturing'))
            .set(2499, new Map([[1, 'a claim to come']])),
      });
      expect(await refusals(ccaEvidence(token)), profile).toEqual([]);
    }
    // Measurements and signers of SHA-512, and of SHA-384, are as long as these.
    for (const length of [48, 64]) {
      const components = [{ type: 'BL', measurement: randomBytes(length), signer: randomBytes(length) }];
      const token = mint({
        platform: (claims) =>
          void claims.set(
            2399,
            components.map(
              ({ type, measurement, signer }) =>
                new Map<CborValue, CborValue>([
                  [1, type],
                  [2, measurement],
                  [4, '1.2.3'],
                  [5, signer],
                ]),
            ),
          ),
      });
      const [reference] = platform.stores().platforms;
      const by = under({ platforms: reference === undefined ? [] : [{ ...reference, components }] });
      expect(await refusals(ccaEvidence(token), by), `${length}`).toEqual([]);
    }
  });

  it('is accepted as text too, which is how upstream passes it on', async () => {
    expect(await refusals(JSON.stringify(ccaEvidence(mint())))).toEqual([]);
  });

  const set =
    (label: number, value: CborValue) =>
    (claims: Map<CborValue, CborValue>): void =>
      void claims.set(label, value);
  const other = generateKeyPairSync('ec', { namedCurve: 'P-384' });

  it.each<[string, MintFaults, string[]]>([
    ['another challenge', { realm: set(10, randomBytes(64)) }, ['realm challenge: EV_BINDING_MISMATCH']],
    [
      'a challenge with a tail',
      { realm: set(10, Buffer.concat([reportData, Buffer.alloc(15), Buffer.from([1])])) },
      ['realm challenge: EV_BINDING_MISMATCH'],
    ],
    ['other initdata', { realm: set(44235, randomBytes(64)) }, ['realm personalization value: INITDATA_DIGEST']],
    ['another realm key’s signature', { realmKey: other.privateKey }, ['realm token signature: EV_SIGNATURE']],
    ['another platform key’s signature', { platformKey: other.privateKey }, ['platform token signature: EV_SIGNATURE']],
    [
      'a realm key that is not vouched for',
      { platform: set(10, randomBytes(32)) },
      ['realm attestation key: EV_PART_MIX'],
    ],
    [
      'a realm key digest by a weak hash',
      { realm: set(44240, 'md5') },
      ['hash algorithms: EV_FORMAT', 'realm attestation key: EV_PART_MIX'],
    ],
    ['another hash of the realm key', { realm: set(44240, 'sha-384') }, ['realm attestation key: EV_PART_MIX']],
    ['an unknown hash of the realm', { realm: set(44236, 'sha-1') }, ['hash algorithms: EV_FORMAT']],
    ['an unknown hash of the platform', { platform: set(2402, 'constructor') }, ['hash algorithms: EV_FORMAT']],
    [
      'another instance',
      { platform: set(256, Buffer.concat([Buffer.from([1]), randomBytes(32)])) },
      ['platform attestation key: EV_CERT_CHAIN'],
    ],
    [
      'another implementation',
      { platform: set(2396, randomBytes(32)) },
      ['platform implementation: EV_PART_MIX', 'platform firmware and configuration: RV_NOT_LOADED'],
    ],
    [
      'another configuration',
      { platform: set(2401, Buffer.from('00', 'hex')) },
      ['platform firmware and configuration: RV_MISMATCH'],
    ],
    ['lifecycle unknown', { platform: set(2395, 0x0001) }, ['platform lifecycle: EV_DEBUG_ON']],
    ['lifecycle provisioning', { platform: set(2395, 0x2000) }, ['platform lifecycle: EV_DEBUG_ON']],
    ['lifecycle debug', { platform: set(2395, 0x4000) }, ['platform lifecycle: EV_DEBUG_ON']],
    ['lifecycle recoverable debug', { platform: set(2395, 0x5001) }, ['platform lifecycle: EV_DEBUG_ON']],
    ['lifecycle decommissioned', { platform: set(2395, 0x6000) }, ['platform lifecycle: EV_DEBUG_ON']],
    ['a lifecycle beyond', { platform: set(2395, 0x3100) }, ['platform lifecycle: EV_DEBUG_ON']],
    ['a negative lifecycle', { platform: set(2395, -1) }, ['platform lifecycle: EV_DEBUG_ON']],
    ['an unknown platform profile', { platform: set(265, 'tag:arm.com,2030:x') }, ['thrown: EV_FORMAT']],
    ['an unknown realm profile', { profile: '2023', realm: set(265, 'tag:arm.com,2030:x') }, ['thrown: EV_FORMAT']],
    ['a short challenge', { realm: set(10, randomBytes(32)) }, ['thrown: EV_FORMAT']],
    ['an instance id of another kind', { platform: set(256, randomBytes(32)) }, ['thrown: EV_FORMAT']],
    ['no components', { platform: set(2399, []) }, ['thrown: EV_FORMAT']],
    [
      'three extensible measurements',
      {
        realm: set(
          44239,
          [0, 1, 2].map(() => randomBytes(64)),
        ),
      },
      ['thrown: EV_FORMAT'],
    ],
    [
      'a realm key off its curve',
      { realm: set(44237, Buffer.concat([Buffer.from([4]), Buffer.alloc(96, 1)])) },
      ['thrown: EV_FORMAT'],
    ],
    ['no realm key', { realm: (claims) => void claims.delete(44237) }, ['thrown: EV_FORMAT']],
    ['another client', { profile: '2024', platform: set(2394, 2) }, ['thrown: EV_FORMAT']],
    ['another memory encryption policy', { profile: '2024', realm: set(44243, 'none') }, ['thrown: EV_FORMAT']],
    [
      'an algorithm that does not fit its key',
      { options: { algorithm: -7 } },
      ['platform token signature: EV_SIGNATURE', 'realm token signature: EV_SIGNATURE'],
    ],
  ])('with %s is refused', async (_, faults, expected) => {
    expect(await refusals(ccaEvidence(mint(faults)))).toEqual(expected);
  });

  it('with another component, one more, one less or one twice is refused', async () => {
    const change = (edit: (components: Map<CborValue, CborValue>[]) => void) =>
      refusals(ccaEvidence(mint({ platform: (claims) => edit(claims.get(2399) as Map<CborValue, CborValue>[]) })));
    const mismatch = ['platform firmware and configuration: RV_MISMATCH'];
    expect(await change(([first]) => first?.set(2, randomBytes(32)))).toEqual(mismatch);
    expect(await change(([first]) => first?.set(5, randomBytes(32)))).toEqual(mismatch);
    expect(await change(([first]) => first?.set(1, 'other'))).toEqual(mismatch);
    expect(await change((components) => components.pop())).toEqual(mismatch);
    expect(await change((components) => components.push(new Map(components[0])))).toEqual(mismatch);
    expect(await change((components) => components.reverse())).toEqual([]);
  });

  it('of a platform in debug outside its root of trust is accepted by the switch only', async () => {
    const evidence = ccaEvidence(mint({ platform: set(2395, 0x40ff) }));
    expect(await refusals(evidence, under({}, true))).toEqual([]);
    expect(await refusals(ccaEvidence(mint({ platform: set(2395, 0x5000) })), under({}, true))).toEqual([
      'platform lifecycle: EV_DEBUG_ON',
    ]);
  });

  it('is refused with its realm part from another platform, bound to nothing, or under other stores', async () => {
    const stranger = new TestPlatform();
    expect(await refusals(ccaEvidence(stranger.token(regularise(reportData, 64), Buffer.alloc(64))))).toContain(
      'platform attestation key: EV_CERT_CHAIN',
    );
    const { reportData: _, ...unbound } = expectations;
    expect(await refusals(ccaEvidence(mint()), under(), unbound)).toEqual(['realm challenge: EV_BINDING_MISMATCH']);
    const [anchor] = platform.stores().anchors;
    if (anchor === undefined) throw new Error('no anchor');
    const forged = under({ anchors: [{ ...anchor, key: other.publicKey }] });
    expect(await refusals(ccaEvidence(mint()), forged)).toEqual(['platform token signature: EV_SIGNATURE']);
    expect(await refusals(ccaEvidence(mint()), under({ platforms: [] }))).toEqual([
      'platform firmware and configuration: RV_NOT_LOADED',
    ]);
  });

  it('says what is known of the realm, for policies', async () => {
    const said = async (realms: CcaStores['realms']): Promise<JsonValue | undefined> =>
      ((await verified(ccaEvidence(mint()), under({ realms }))).claims['sealpod'] as JsonObject)['realm_appraisal'];
    const { initialMeasurement, extensibleMeasurements } = platform;
    expect(await said([])).toBe('unrecognized');
    expect(await said([{ initialMeasurement }])).toBe('approved-boot');
    expect(await said([{ initialMeasurement, extensibleMeasurements }])).toBe('approved-runtime');
    expect(await said([{ initialMeasurement, extensibleMeasurements: [] }])).toBe('contraindicated-runtime');
  });

  it('is refused with any byte changed', { timeout: 300_000 }, async () => {
    const genuine = mint({ profile: '2024' });
    for (let at = 0; at < genuine.length; at += 1) {
      const changed = Buffer.from(genuine);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(await refusals(ccaEvidence(changed)), `byte ${at}`).not.toEqual([]);
    }
    expect(genuine.length).toBeGreaterThan(900);
  });

  it('that is malformed is refused by name, whatever it is', async () => {
    const parts = (...entries: [CborValue, CborValue][]): Buffer => cborTagged(399, encodeCbor(new Map(entries)));
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from([0]),
      encodeCbor(new Map()),
      parts(),
      parts([44234, Buffer.alloc(4)]),
      parts([44234, 1], [44241, 1]),
      parts([44234, Buffer.alloc(4)], [44241, Buffer.alloc(4)], [1, 1]),
      Buffer.concat([mint(), Buffer.alloc(1)]),
    ])
      expect(await refusals(ccaEvidence(bytes))).toEqual(['thrown: EV_FORMAT']);
    expect(await refusals(ccaEvidence(Buffer.alloc(65_537)))).toEqual(['thrown: EV_FORMAT']);
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (value) => {
        expect(await refusals(value as JsonValue)).toHaveLength(1);
        expect(await refusals({ token: value } as JsonValue)).toHaveLength(1);
      }),
      { numRuns: 200 },
    );
    const genuine = mint();
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 8 }), async (at, bytes) => {
        const token = Buffer.from(genuine);
        token.set(bytes.subarray(0, token.length - (at % token.length)), at % token.length);
        expect((await refusals(ccaEvidence(token))).length > 0).toBe(!token.equals(genuine));
      }),
      { numRuns: 200 },
    );
  });
});

describe('stores in files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cca-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const write = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const codeOf = (anchors: string, values = '{}'): string => {
    try {
      fileStores(write('ta.json', anchors), write('rv.json', values))();
      return 'none';
    } catch (thrown) {
      return thrown instanceof SealpodError ? thrown.code : String(thrown);
    }
  };
  const anchor = {
    'instance-id': platform.instanceId.toString('hex'),
    'implementation-id': platform.implementationId.toString('hex'),
    pkey: platform.key.publicKey.export({ format: 'jwk' }),
  };

  it('are read again when they have changed, and malformed ones refuse everything', async () => {
    const anchors = write('anchors.json', JSON.stringify([anchor]));
    const values = write('values.json', JSON.stringify({ platform: [], realm: [] }));
    const config = readCcaConfig(
      { platforms: { type: 'local', trustAnchorFile: 'anchors.json', referenceValueFile: 'values.json' } },
      (path) => join(folder, path),
    );
    const verifier = ccaVerifier({ allowNonCcaDebug: false }, ccaPlatforms(config));
    const evidence = ccaEvidence(mint());
    expect(await refusals(evidence, verifier)).toEqual(['platform firmware and configuration: RV_NOT_LOADED']);
    const [reference] = platform.stores().platforms;
    const known = {
      'implementation-id': platform.implementationId.toString('hex'),
      'platform-configuration': platform.configuration.toString('hex'),
      'sw-components': reference?.components.map(({ measurement, signer, type }) => ({
        'measurement-value': measurement.toString('hex'),
        'signer-id': signer.toString('hex'),
        'component-type': type,
      })),
    };
    writeFileSync(values, JSON.stringify({ platform: [known], realm: [] }));
    expect(await refusals(evidence, verifier)).toEqual([]);
    rmSync(anchors);
    expect(await refusals(evidence, verifier)).toEqual(['stores of platforms: EV_COLLATERAL_UNAVAILABLE']);
  });

  it('may leave type and version of a component open, as upstream’s tool writes them', async () => {
    const [reference] = platform.stores().platforms;
    const known = {
      'implementation-id': platform.implementationId.toString('hex'),
      'platform-configuration': platform.configuration.toString('hex'),
      'sw-components': reference?.components.map(({ measurement, signer }) => ({
        'measurement-value': measurement.toString('hex'),
        'signer-id': signer.toString('hex'),
        'component-type': null,
        version: null,
      })),
    };
    const realm = {
      'initial-measurement': platform.initialMeasurement.toString('hex'),
      'extensible-measurements': null,
    };
    const stores = fileStores(
      write('open-ta.json', JSON.stringify([anchor])),
      write('open-rv.json', JSON.stringify({ platform: [known], realm: [realm] })),
    );
    const numbered = mint({ profile: '2024', realm: (claims) => void claims.set(44243, 1) });
    const { verdict, claims } = await verified(
      ccaEvidence(numbered),
      ccaVerifier({ allowNonCcaDebug: false }, { stores }),
    );
    expect(failures(verdict)).toEqual([]);
    expect(claims['sealpod']).toMatchObject({ realm_appraisal: 'approved-boot', realm_memory_encryption_policy: 1 });
  });

  it('are refused with an instance twice, a private key, another type or no JSON', () => {
    expect(codeOf(JSON.stringify([anchor]))).toBe('none');
    expect(codeOf(JSON.stringify([anchor, anchor]))).toBe('EV_COLLATERAL_UNAVAILABLE');
    const pkey = platform.key.privateKey.export({ format: 'jwk' });
    expect(codeOf(JSON.stringify([{ ...anchor, pkey }]))).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(codeOf(JSON.stringify([{ ...anchor, 'instance-id': 'xyz' }]))).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(codeOf('{}')).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(codeOf('[]', '[]')).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(codeOf('no JSON')).toBe('EV_COLLATERAL_UNAVAILABLE');
  });

  it('are configured by members that are all known', () => {
    const refused = (value: JsonValue): boolean => {
      try {
        readCcaConfig(value, (path) => path);
        return false;
      } catch (thrown) {
        return thrown instanceof SealpodError && thrown.code === 'USAGE';
      }
    };
    const local = { type: 'local', trustAnchorFile: 'a', referenceValueFile: 'b' };
    expect(refused({ platforms: local, allowNonCcaDebug: true })).toBe(false);
    expect(refused({ platforms: { type: 'veraison', url: 'https://veraison.example', keysFile: 'k' } })).toBe(false);
    for (const wrong of [
      {},
      { platforms: { ...local, other: 1 } },
      { platforms: local, other: 1 },
      { platforms: { type: 'veraison', url: 'ftp://x' } },
      { platforms: { type: 'other' } },
      { platforms: local, allowNonCcaDebug: 1 },
    ])
      expect(refused(wrong), JSON.stringify(wrong)).toBe(true);
  });
});

const vectors = vectorPath('cca');
describe.skipIf(!existsSync(vectors))('the published CCA token (skipped where the vectors are absent)', () => {
  const token = existsSync(vectors) ? readFileSync(vectorPath('cca/cca-example-token.cbor')) : Buffer.alloc(0);
  const challenge =
    '57e979ae2618de0c1ab73144c440d741cf9236dc9d52ed190053382a4d190252f9f0370403c35dcb155fb4362d73c66d5b0494bf939315d3dc52b8cdc8b85a96';
  const stores = fileStores(vectorPath('cca/tastore.json'), vectorPath('cca/rvstore.json'));
  const verifier = ccaVerifier({ allowNonCcaDebug: false }, { stores });
  const against = { ...expectations, reportData: Buffer.from(challenge, 'hex'), initDataDigest: Buffer.alloc(64) };

  it('verifies under the published stores, with golden claims', async () => {
    const { verdict, claims } = await verified(ccaEvidence(token), verifier, against);
    expect(failures(verdict)).toEqual([]);
    const { sealpod, ...upstream } = claims;
    const zeros = Buffer.alloc(64).toString('base64');
    expect(upstream).toEqual({
      platform: {
        'cca-platform-instance-id': 'AQcGBQQDAgEADw4NDAsKCQgXFhUUExIREB8eHRwbGhkY',
        'cca-platform-implementation-id': 'f0VMRgIBAQAAAAAAAAAAAAMAPgABAAAAUFgAAAAAAAA=',
      },
      realm: {
        'cca-realm-challenge': Buffer.from(challenge, 'hex').toString('base64'),
        'cca-realm-personalization-value': zeros,
        'cca-realm-initial-measurement': Buffer.from(
          'ae87fbf7f105e71a7827cb6f0896889c73d2beaf4830d4f9cb05e3e96c3fc7b4faa04caf36a26bd094cf9c7b738617e4c189aaee184dedda5d7a03c39dbdac7c',
          'hex',
        ).toString('base64'),
        'cca-realm-extensible-measurements': [zeros, zeros, zeros, zeros],
        'cca-realm-hash-algo-id': 'sha-512',
      },
      report_data: challenge,
      init_data: '00'.repeat(64),
    });
    expect(sealpod).toMatchObject({ realm_appraisal: 'approved-runtime', platform_lifecycle_value: 12291 });
  });

  it('is refused for another session and for other initdata', async () => {
    expect(await refusals(ccaEvidence(token), verifier)).toEqual([
      'realm challenge: EV_BINDING_MISMATCH',
      'realm personalization value: INITDATA_DIGEST',
    ]);
  });
});
