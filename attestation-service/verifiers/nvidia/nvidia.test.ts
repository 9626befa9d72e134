import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { maxNvidiaDevices, parseNvidiaReport, parseOpaqueData } from '@sealpod/protocol/nvidia';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures, type Verdict } from '@sealpod/protocol/verdict';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { parseCertificate, parsePemCertificates } from '../../endorsements/certificate.ts';
import { firmwareIds } from '../../endorsements/dice.ts';
import { nvidiaDeviceRoot, nvidiaManifestRoot } from '../../endorsements/nvidia/certificates.ts';
import type { ManifestSource } from '../../endorsements/nvidia/manifests.ts';
import { checkSentChain } from '../certificate-chain.ts';
import { type Issued, issue, rootOf } from '../testing/authority.ts';
import type { Verification, Verifier } from '../verifier.ts';
import { type NvidiaRules, nvidiaVerifier } from './index.ts';
import { readReferenceManifest } from './reference-manifest.ts';
import {
  compositeDeviceId,
  deviceEvidence,
  firmwareDigest,
  gpuManifests,
  gpuOpaque,
  type ManifestOptions,
  manifestSource,
  measurementOf,
  mintManifest,
  mintReport,
  type ReportOptions,
  switchOpaque,
  type TestDevice,
  type TestNvidia,
  tcbInfo,
  testDevice,
  testNvidia,
} from './testing/mint.ts';
import { isSigned } from './verify.ts';

const reportData = randomBytes(48);
const nonce = reportData.subarray(0, 32);
const now = new Date('2026-06-01T00:00:00Z');
const expectations = { reportData, trustedAttestationKeys: [], now };

let nvidia: TestNvidia;
let gpu: TestDevice;
let verifier: Verifier;

beforeAll(async () => {
  nvidia = await testNvidia();
  gpu = await testDevice(nvidia);
  verifier = under();
});

function under(rules: Partial<NvidiaRules> = {}): Verifier {
  return nvidiaVerifier({ root: rootOf('test NVIDIA', nvidia.root), ...rules });
}

const evidence = (...devices: JsonValue[]): JsonObject => ({ device_evidence_list: devices });
const minted = (options: Partial<ReportOptions> = {}, device = gpu): JsonObject =>
  evidence(deviceEvidence(mintReport(device, { nonce, ...options }), device.chain));

async function verified(value: JsonValue, by = verifier, against: object = {}): Promise<Verification> {
  return by.verify(value, { ...expectations, ...against });
}

const named = (verdict: Verdict): string[] => failures(verdict).map(({ check, code }) => `${check}: ${code}`);

async function refusals(value: JsonValue, by = verifier, against: object = {}): Promise<string[]> {
  try {
    return named((await verified(value, by, against)).verdict);
  } catch (thrown) {
    if (thrown instanceof SealpodError) return [`thrown: ${thrown.code}`];
    throw thrown;
  }
}

describe('recorded Hopper evidence', () => {
  const recordedNonce = Buffer.from('931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb', 'hex');
  const read = (name: string): string => readFileSync(vectorPath('nvidia', name), 'utf8');
  const present = existsSync(vectorPath('nvidia', 'hopperAttestationReport.txt'));
  const real = nvidiaVerifier({ root: nvidiaDeviceRoot });
  const recorded = (chain = 'hopper_cert_chain_case1.txt', report = read('hopperAttestationReport.txt')): JsonObject =>
    evidence({
      arch: 'HOPPER',
      uuid: '1111-2222-33333-444444-555555',
      evidence: report.trim(),
      certificate: Buffer.from(read(chain)).toString('base64'),
    });

  it('verifies to NVIDIA’s root, and its claims are upstream’s byte for byte', async (context) => {
    if (!present) context.skip('no vectors of NVIDIA');
    const { verdict, submodules } = await verified(recorded(), real, { reportData: recordedNonce });
    expect(named(verdict)).toEqual([]);
    const [device] = submodules ?? [];
    const { sealpod, ...upstream } = device?.claims ?? {};
    expect(device?.teeClass).toBe('gpu');
    expect(upstream).toEqual(JSON.parse(read('hopperAttestationReport-claims.txt')));
    expect(sealpod).toMatchObject({ firmware_ids: [(upstream['config'] as JsonObject)['fwid']] });
  });

  it('is refused with another chain, another nonce, and at every changed byte that is signed', async (context) => {
    if (!present) context.skip('no vectors of NVIDIA');
    const against = { reportData: recordedNonce };
    expect(await refusals(recorded('hopper_cert_chain_case2.txt'), real, against)).toContain(
      'architecture: EV_PART_MIX',
    );
    expect(await refusals(recorded(), real, { reportData: randomBytes(32) })).toEqual(['nonce: EV_BINDING_MISMATCH']);
    const report = Buffer.from(read('hopperAttestationReport.txt').trim(), 'hex');
    const certificates = parsePemCertificates(read('hopper_cert_chain_case1.txt'));
    const key = certificates[0]?.x509.publicKey;
    if (key === undefined) throw new Error('no leaf');
    // The parser refuses a change, or the signature does: chain and claims play no part in it.
    for (let at = 0; at < report.length; at += 1) {
      const changed = Buffer.from(report);
      changed[at] = (changed[at] ?? 0) ^ 1;
      const accepted = ((): boolean => {
        try {
          const { signed, signature } = parseNvidiaReport(changed);
          return isSigned(signed, signature, key);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(SealpodError);
          return false;
        }
      })();
      expect(accepted, `byte ${at}`).toBe(false);
    }
  }, 60_000);

  it('accepts bytes after the signature, as a driver’s buffer has them', async (context) => {
    if (!present) context.skip('no vectors of NVIDIA');
    const report = `${read('hopperAttestationReport.txt').trim()}00`;
    expect(await refusals(recorded(undefined, report), real, { reportData: recordedNonce })).toEqual([]);
  });
});

describe('minted evidence', () => {
  it('of Hopper, Blackwell and a switch is accepted, each in a submodule of its class', async () => {
    const blackwell = await testDevice(nvidia, 'GB100 A01 FSP FMC LF', tcbInfo());
    const ls10 = await testDevice(nvidia, 'LS_10 A01 FSP FMC LF');
    const noGpuFields = Object.fromEntries(Object.keys(gpuOpaque).map((type) => [type, null]));
    const { verdict, submodules } = await verified(
      evidence(
        deviceEvidence(mintReport(gpu, { nonce }), gpu.chain),
        deviceEvidence(mintReport(blackwell, { nonce, header: true }), blackwell.chain, 'BLACKWELL'),
        deviceEvidence(mintReport(ls10, { nonce, opaque: { ...noGpuFields, ...switchOpaque } }), ls10.chain, 'LS10'),
      ),
    );
    expect(named(verdict)).toEqual([]);
    expect(submodules?.map(({ teeClass, claims }) => [teeClass, claims['arch']])).toEqual([
      ['gpu', 'Hopper'],
      ['gpu', 'Blackwell'],
      ['switch', 'LS10'],
    ]);
    expect(submodules?.[2]?.claims['config']).toEqual({ vbios_version: '96.10.55.00.01' });
    expect(submodules?.[0]?.claims['config']).toMatchObject({
      driver_version: '570.10',
      vbios_version: '96.00.9f.00.01',
    });
  });

  const other = createHash('sha384').update('other').digest();
  const mutations: [string, () => Promise<JsonObject> | JsonObject, string[], object?][] = [
    ['another nonce', () => minted({ nonce: randomBytes(32) }), ['nonce: EV_BINDING_MISMATCH']],
    ['no runtime data', () => minted(), ['nonce: EV_BINDING_MISMATCH'], { reportData: undefined }],
    [
      'a foreign signature',
      async () => {
        const foreign = await testDevice(nvidia);
        return evidence(deviceEvidence(mintReport(foreign, { nonce }), gpu.chain));
      },
      ['report signature: EV_SIGNATURE'],
    ],
    ['another firmware', () => minted({ opaque: { 20: other } }), ['firmware identity: EV_PART_MIX']],
    ['no firmware identity in the report', () => minted({ opaque: { 20: null } }), ['firmware identity: EV_PART_MIX']],
    [
      'no firmware identity in the certificate',
      async () => {
        const device = await testDevice(
          nvidia,
          undefined,
          new (await import('@peculiar/x509')).Extension('1.2.3.4', false, new ArrayBuffer(2)),
        );
        return minted({}, device);
      },
      ['firmware identity: EV_PART_MIX'],
    ],
    [
      'the second identity only',
      async () => minted({}, await testDevice(nvidia, undefined, tcbInfo([other, firmwareDigest]))),
      ['firmware identity: EV_PART_MIX'],
    ],
    [
      'a device of another architecture',
      async () => minted({}, await testDevice(nvidia, 'GB100 A01 FSP FMC LF')),
      ['architecture: EV_PART_MIX'],
    ],
    [
      'an unknown architecture',
      () => evidence({ ...deviceEvidence(mintReport(gpu, { nonce }), gpu.chain, 'RUBIN') }),
      ['thrown: EV_TEE_UNSUPPORTED'],
    ],
    [
      'a chain to another root',
      async () => {
        const strange = await testNvidia();
        return minted({}, await testDevice(strange));
      },
      ['certificate chain: EV_CERT_CHAIN'],
    ],
    [
      'a chain without its middle',
      () => evidence(deviceEvidence(mintReport(gpu, { nonce }), [gpu.leaf, nvidia.root])),
      ['certificate chain: EV_CERT_CHAIN'],
    ],
    [
      'a chain with a certificate too many',
      () => evidence(deviceEvidence(mintReport(gpu, { nonce }), [...gpu.chain, nvidia.manifestAuthority])),
      ['certificate chain: EV_CERT_CHAIN'],
    ],
    ['an expired chain', () => minted(), ['certificate chain: EV_CERT_CHAIN'], { now: new Date('2040-01-01') }],
    [
      'a chain that is not valid yet',
      () => minted(),
      ['certificate chain: EV_CERT_CHAIN'],
      { now: new Date('2020-01-01') },
    ],
    ['no version of the driver', () => minted({ opaque: { 3: null } }), ['versions: EV_FORMAT']],
    ['no version of the firmware', () => minted({ opaque: { 6: Buffer.alloc(0) } }), ['versions: EV_FORMAT']],
    [
      'another version of SPDM',
      () => minted({ change: (messages) => messages.fill(0x12, 0, 1) }),
      ['SPDM messages: EV_FORMAT'],
    ],
    [
      'another request',
      () => minted({ change: (messages) => messages.fill(0xe1, 1, 2) }),
      ['SPDM messages: EV_FORMAT'],
    ],
    [
      'a request without signature',
      () => minted({ change: (messages) => messages.fill(0, 2, 3) }),
      ['SPDM messages: EV_FORMAT'],
    ],
    [
      'a request for one measurement',
      () => minted({ change: (messages) => messages.fill(1, 3, 4) }),
      ['SPDM messages: EV_FORMAT'],
    ],
    ['another slot', () => minted({ change: (messages) => messages.fill(1, 36, 37) }), ['SPDM messages: EV_FORMAT']],
    [
      'an answer of another kind',
      () => minted({ change: (messages) => messages.fill(0x7f, 38, 39) }),
      ['SPDM messages: EV_FORMAT'],
    ],
    [
      'a measurement of another specification',
      () => minted({ change: (messages) => messages.fill(2, 46, 47) }),
      ['thrown: EV_FORMAT'],
    ],
    [
      'no opaque data at all, as a report of the FSP has none',
      async () => {
        const fsp = await testDevice(nvidia, 'GB100 A01 FSP FMC LF', tcbInfo());
        const none = Object.fromEntries(Object.keys(gpuOpaque).map((type) => [type, null]));
        return evidence(deviceEvidence(mintReport(fsp, { nonce, opaque: none }), fsp.chain, 'BLACKWELL'));
      },
      ['versions: EV_FORMAT', 'firmware identity: EV_PART_MIX'],
    ],
    ['measurement counts cut short', () => minted({ opaque: { 12: Buffer.alloc(3) } }), ['thrown: EV_FORMAT']],
    ['links cut short', () => minted({ opaque: { 22: Buffer.alloc(9) } }), ['thrown: EV_FORMAT']],
    ['an opaque field of the invalid type', () => minted({ opaque: { 255: Buffer.alloc(1) } }), ['thrown: EV_FORMAT']],
    ['no device', () => evidence(), ['thrown: EV_FORMAT']],
    ['no certificates', () => evidence({ arch: 'HOPPER', evidence: '00', certificate: '' }), ['thrown: EV_FORMAT']],
    [
      'a report that is no hexadecimal and no base64',
      () => evidence({ arch: 'HOPPER', evidence: '!', certificate: '' }),
      ['thrown: EV_FORMAT'],
    ],
    [
      'a device twice',
      () => {
        const device = deviceEvidence(mintReport(gpu, { nonce }), gpu.chain);
        return evidence(device, { ...device, uuid: 'GPU-2' });
      },
      ['distinct devices: EV_PART_MIX'],
    ],
  ];
  it.each(mutations)('is refused with %s', async (_, make, expected, against = {}) => {
    expect(await refusals(await make(), verifier, against)).toEqual(expected);
  });

  it('is refused at every changed byte of the certificates', async () => {
    const report = mintReport(gpu, { nonce });
    for (const [index, certificate] of gpu.chain.entries()) {
      for (let at = 0; at < certificate.der.length; at += 61) {
        const changed = Buffer.from(certificate.der);
        changed[at] = (changed[at] ?? 0) ^ 0x40;
        const chain = gpu.chain.map(
          (member, position): Issued => (position === index ? { ...member, der: changed } : member),
        );
        expect(await refusals(evidence(deviceEvidence(report, chain))), `certificate ${index}, byte ${at}`).not.toEqual(
          [],
        );
      }
    }
  });

  it('does not make more work than the cap on devices permits (finding 17: no fan-out of the guest’s choice)', async () => {
    const device = deviceEvidence(mintReport(gpu, { nonce }), gpu.chain);
    const many = evidence(...Array.from({ length: maxNvidiaDevices + 1 }, () => device));
    expect(await refusals(many)).toEqual(['thrown: REQUEST_TOO_LARGE']);
  });

  it('keeps fields that new firmware brings', async () => {
    const { verdict, submodules } = await verified(minted({ opaque: { 77: Buffer.from('abcd', 'hex') } }));
    expect(named(verdict)).toEqual([]);
    expect(submodules?.[0]?.claims['config']).toMatchObject({ unknown_77: 'abcd' });
  });
});

describe('reference manifests', () => {
  const driverId = 'NV_GPU_DRIVER_GH100_570.10';
  const firmwareName = 'NV_GPU_VBIOS_1010_0200_882_96009F0001';
  const manifests = (
    driver: Partial<ManifestOptions> = {},
    firmware: Partial<ManifestOptions> = {},
  ): Record<string, string> => gpuManifests(nvidia, driver, firmware);
  const held = (texts: Readonly<Record<string, string>>, acceptExpiredSigners = false): Verifier =>
    under({
      manifests: {
        root: rootOf('test manifests', nvidia.manifestRoot),
        acceptExpiredSigners,
        sources: [manifestSource(texts)],
      },
    });

  it('that fit make the claims that NVIDIA’s verifiers make', async () => {
    const { verdict, submodules } = await verified(minted(), held(manifests()));
    expect(named(verdict)).toEqual([]);
    expect(submodules?.[0]?.claims).toMatchObject({
      measres: 'success',
      secboot: true,
      dbgstat: 'disabled',
      'x-nvidia-gpu-driver-version': '570.10',
      'x-nvidia-gpu-vbios-version': '96.00.9F.00.01',
      'x-nvidia-gpu-driver-rim-signature-verified': true,
      'x-nvidia-gpu-vbios-rim-cert-chain': {
        'x-nvidia-cert-expiration-date': '2030-01-01T00:00:00Z',
        'x-nvidia-cert-status': 'valid',
        'x-nvidia-cert-ocsp-status': null,
        'x-nvidia-cert-revocation-reason': null,
      },
      oemid: '5703',
    });
  });

  it('are not asked for in the name of a device that does not verify', async () => {
    const asked: string[] = [];
    const spy: ManifestSource = { name: 'spy', manifest: async (id) => void asked.push(id) };
    const by = under({
      manifests: { root: rootOf('m', nvidia.manifestRoot), acceptExpiredSigners: false, sources: [spy] },
    });
    expect(await refusals(minted({ nonce: randomBytes(32) }), by)).toEqual(['nonce: EV_BINDING_MISMATCH']);
    expect(asked).toEqual([]);
    await refusals(minted(), by);
    expect(asked.sort()).toEqual([driverId, firmwareName].sort());
  });

  const wrong = createHash('sha384').update('wrong').digest();
  const cases: [string, () => Promise<Verifier> | Verifier, string[], Partial<ReportOptions>?][] = [
    [
      'a measurement that differs',
      () => held(manifests()),
      ['measurement 2 (Measurement_1): RV_MISMATCH'],
      {
        measurements: new Map(
          Array.from({ length: 40 }, (_, at) => [at + 1, at === 1 ? wrong : measurementOf(at + 1)]),
        ),
      },
    ],
    [
      'a measurement that is not there',
      () => held(manifests()),
      ['measurement 36 (Measurement_35): RV_MISMATCH'],
      {
        measurements: new Map(Array.from({ length: 35 }, (_, at) => [at + 1, measurementOf(at + 1)])),
      },
    ],
    [
      'no manifest',
      () => held({}),
      ['driver manifest: EV_COLLATERAL_UNAVAILABLE', 'vbios manifest: EV_COLLATERAL_UNAVAILABLE'],
    ],
    ['a manifest of another version', () => held(manifests({ version: '571' })), ['version: RV_MISMATCH']],
    [
      'a manifest without measurements',
      () => held(manifests({ measurements: new Map() })),
      ['measurements: EV_FORMAT'],
    ],
    [
      'manifests that speak of the same measurement',
      () => held(manifests({ measurements: new Map([[3, [measurementOf(4)]]]) })),
      ['measurement indices: RV_MISMATCH'],
    ],
    [
      'a manifest of a signer that is not NVIDIA’s',
      async () => {
        const signer = await issue(undefined, 'CN=Somebody');
        return held(manifests({ signer }));
      },
      ['certificate chain: EV_CERT_CHAIN'],
    ],
    [
      'a manifest that was changed',
      () => {
        const texts = manifests();
        return held({
          ...texts,
          [driverId]: (texts[driverId] ?? '').replace(measurementOf(2).toString('hex'), wrong.toString('hex')),
        });
      },
      ['driver manifest: EV_SIGNATURE'],
    ],
    [
      'a manifest with a second payload beside what is signed',
      () => {
        const texts = manifests();
        return held({
          ...texts,
          [driverId]: (texts[driverId] ?? '').replace(
            '</SoftwareIdentity>',
            '<ns0:Payload></ns0:Payload></SoftwareIdentity>',
          ),
        });
      },
      ['driver manifest: EV_SIGNATURE'],
    ],
    [
      'a manifest without signature',
      () => {
        const texts = manifests();
        return held({ ...texts, [driverId]: (texts[driverId] ?? '').replace(/<ds:Signature .*<\/ds:Signature>/, '') });
      },
      ['driver manifest: EV_FORMAT'],
    ],
    [
      'a manifest with entities',
      () => held({ ...manifests(), [driverId]: '<!DOCTYPE a [<!ENTITY b "c">]><a/>' }),
      ['driver manifest: EV_FORMAT'],
    ],
    [
      'a name that leads elsewhere',
      () => held(manifests()),
      ['thrown: EV_FORMAT'],
      { opaque: { 17: Buffer.from('../../etc\0') } },
    ],
  ];
  it.each(cases)('refuse a device with %s', async (_, by, expected, options = {}) => {
    expect(await refusals(minted(options), await by())).toEqual(expected);
  });

  it('do not count the decoder where it is fused off', async () => {
    const options = {
      opaque: { 11: Buffer.from([0x55]) },
      measurements: new Map(Array.from({ length: 40 }, (_, at) => [at + 1, at === 35 ? wrong : measurementOf(at + 1)])),
    };
    expect(await refusals(minted(options), held(manifests()))).toEqual([]);
    expect(await refusals(minted({ ...options, opaque: {} }), held(manifests()))).toEqual([
      'measurement 36 (Measurement_35): RV_MISMATCH',
    ]);
  });

  it('of an expired signer are used by switch only, and claims say so', async () => {
    const against = { now: new Date('2031-01-01') };
    expect(await refusals(minted(), held(manifests()), against)).toEqual([
      'certificate chain: EV_CERT_CHAIN',
      'certificate chain: EV_CERT_CHAIN',
    ]);
    const { verdict, submodules } = await verified(minted(), held(manifests(), true), against);
    expect(named(verdict)).toEqual([]);
    expect(submodules?.[0]?.claims['x-nvidia-gpu-driver-rim-cert-chain']).toMatchObject({
      'x-nvidia-cert-status': 'expired',
    });
  });

  it('of NVIDIA itself verify to its root', (context) => {
    const folder = vectorPath('nvidia', 'rim');
    if (!existsSync(folder)) context.skip(`no reference manifests at ${folder}`);
    const files = readdirSync(folder).filter((name) => name.endsWith('.swidtag'));
    expect(files.length).toBeGreaterThan(0);
    for (const file of files) {
      const manifest = readReferenceManifest(readFileSync(`${folder}/${file}`, 'utf8'));
      expect(checkSentChain(manifest.certificates, nvidiaManifestRoot, new Date('2024-06-01')).code, file).toBe('OK');
      expect(manifest.measurements.length, file).toBeGreaterThan(0);
    }
  });

  it('are refused by a revoked certificate, and claims say what OCSP said', async () => {
    const by = (status: 'good' | 'revoked' | 'unknown'): Verifier =>
      under({
        manifests: {
          root: rootOf('m', nvidia.manifestRoot),
          acceptExpiredSigners: false,
          sources: [manifestSource(manifests())],
        },
        revocation: async ({ x509 }) => (x509.subject === 'CN=Test Manifest CA' ? { status } : { status: 'good' }),
      });
    const { verdict, submodules } = await verified(minted(), by('good'));
    expect(named(verdict)).toEqual([]);
    expect(submodules?.[0]?.claims['x-nvidia-gpu-attestation-report-cert-chain']).toMatchObject({
      'x-nvidia-cert-ocsp-status': 'good',
    });
    const check = 'revocation of CN=Test Manifest CA';
    expect(await refusals(minted(), by('revoked'))).toEqual([`${check}: EV_CERT_REVOKED`, `${check}: EV_CERT_REVOKED`]);
    expect(await refusals(minted(), by('unknown'))).toContain(`${check}: EV_COLLATERAL_UNAVAILABLE`);
  });
});

describe('protected PCIe', () => {
  const pdi = (number: number): Buffer => Buffer.from([number, 1, 1, 1, 1, 1, 1, 1]);
  const list = (numbers: readonly number[]): Buffer => Buffer.concat([...numbers.map(pdi), Buffer.alloc(8)]);

  async function topology(
    gpuPeers: readonly number[],
    switchPeers: readonly number[],
    switches = 4,
  ): Promise<string[]> {
    const noGpuFields = Object.fromEntries(Object.keys(gpuOpaque).map((type) => [type, null]));
    const devices: JsonObject[] = [];
    for (let number = 0; number < 8; number += 1) {
      const device = await testDevice(nvidia);
      devices.push(deviceEvidence(mintReport(device, { nonce, opaque: { 22: list(gpuPeers) } }), device.chain));
    }
    for (let number = 0; number < switches; number += 1) {
      const device = await testDevice(nvidia, 'LS_10 A01 FSP FMC LF');
      const opaque = { ...noGpuFields, ...switchOpaque, 26: list(switchPeers) };
      devices.push(deviceEvidence(mintReport(device, { nonce, opaque }), device.chain, 'LS10'));
    }
    const { verdict, submodules } = await verified(evidence(...devices));
    expect(named(verdict)).toEqual([]);
    return submodules?.map(({ teeClass, claims }) => (teeClass === 'ppcie' ? JSON.stringify(claims) : teeClass)) ?? [];
  }

  it('of eight GPUs and four switches that name each other makes a submodule, and any other does not', async () => {
    const gpus = [11, 12, 13, 14, 15, 16, 17, 18];
    const whole = await topology([1, 2, 3, 4], gpus);
    expect(whole.at(-1)).toBe('{"switch_count":4,"gpu_count":8}');
    expect(whole).toHaveLength(13);
    expect(await topology([1, 2, 3], gpus)).not.toContain('{"switch_count":4,"gpu_count":8}');
    expect(await topology([1, 2, 3, 4], gpus, 3)).toHaveLength(11);
  });
});

describe('parsers', () => {
  it('of reports and opaque data end in a value or an error of format, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
        for (const parse of [parseNvidiaReport, (value: Uint8Array) => parseOpaqueData(Buffer.from(value))]) {
          try {
            parse(bytes);
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(SealpodError);
            expect((thrown as SealpodError).code).toBe('EV_FORMAT');
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('of reports and manifests survive any change of a genuine one', () => {
    const report = mintReport(gpu, { nonce });
    const manifest = mintManifest(nvidia, { version: '1', measurements: new Map([[1, [measurementOf(2)]]]) });
    fc.assert(
      fc.property(fc.nat(), fc.nat(255), (at, value) => {
        const changed = Buffer.from(report);
        changed[at % changed.length] = value;
        const text = Buffer.from(manifest);
        text[at % text.length] = value;
        for (const parse of [() => parseNvidiaReport(changed), () => readReferenceManifest(text.toString('utf8'))]) {
          try {
            parse();
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(SealpodError);
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  it('read firmware identities in all three forms', async () => {
    for (const extension of [compositeDeviceId(), tcbInfo([firmwareDigest]), tcbInfo([firmwareDigest], true)]) {
      const { leaf } = await testDevice(nvidia, undefined, extension);
      expect(firmwareIds(parseCertificate(leaf.der))?.map(({ digest }) => digest)).toEqual([firmwareDigest]);
    }
  });
});
