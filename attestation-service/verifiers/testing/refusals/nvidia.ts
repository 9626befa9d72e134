import { createHash, sign } from 'node:crypto';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { TeeName } from '@sealpod/protocol/rcar';
import { type NvidiaRules, nvidiaVerifier } from '../../nvidia/index.ts';
import {
  deviceEvidence,
  gpuManifests,
  gpuOpaque,
  listRules,
  measurementOf,
  mintReport,
  nvidiaRules,
  type ReportOptions,
  revocationList,
  tcbInfo,
  testDevice,
  testNvidia,
} from '../../nvidia/testing/mint.ts';
import { dpuVerifier } from '../../nvidia-dpu/index.ts';
import { type Issued, issue, rootOf } from '../authority.ts';
import { flippedBytes, type MutatedTee, type Mutation } from './mutation.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = Buffer.alloc(48, 7);
const nonce = reportData.subarray(0, 32);
const another = createHash('sha384').update('another').digest();

export async function nvidiaMutations(): Promise<MutatedTee> {
  const [nvidia, strange] = await Promise.all([testNvidia(), testNvidia()]);
  const gpu = await testDevice(nvidia);
  const rules = (texts = gpuManifests(nvidia)): NvidiaRules => nvidiaRules(nvidia, texts);
  const evidence = (...devices: JsonValue[]): JsonObject => ({ device_evidence_list: devices });
  const mint = (options: Partial<ReportOptions> = {}, device = gpu, arch = 'HOPPER'): JsonObject =>
    evidence(deviceEvidence(mintReport(device, { nonce, ...options }), device.chain, arch));
  const report = (what: string, options: Partial<ReportOptions>): Mutation => ({
    what: `report ${what}`,
    evidence: mint(options),
  });
  const genuine = mint();
  const manifests = (what: string, texts: Record<string, string>): Mutation => ({
    what,
    evidence: genuine,
    by: nvidiaVerifier(rules(texts)),
  });
  const lists = async (what: string, revoked: readonly Issued[], until?: Date): Promise<Mutation> => {
    const revocationLists = listRules({
      '/crl/l1-root.crl': await revocationList(nvidia.root, revoked, until),
      '/crl/corim-l1.crl': await revocationList(nvidia.manifestRoot),
    });
    return { what, evidence: genuine, by: nvidiaVerifier({ ...rules(), revocationLists }) };
  };
  const measured = (index: number): ReadonlyMap<number, Buffer> =>
    new Map(Array.from({ length: 40 }, (_, at) => [at + 1, at + 1 === index ? another : measurementOf(at + 1)]));
  const none = Object.fromEntries(Object.keys(gpuOpaque).map((type) => [type, null]));
  const blackwell = await testDevice(nvidia, 'GB100 A01 FSP FMC LF', tcbInfo());
  const one = mintReport(gpu, { nonce });
  const [driver = ''] = Object.keys(gpuManifests(nvidia));
  const foreign = await issue(undefined, 'CN=Somebody');
  return {
    tee: 'nvidia',
    verifier: nvidiaVerifier(rules()),
    expectations: { reportData, trustedAttestationKeys: [], now },
    genuine,
    mutations: [
      report('for another session', { nonce: Buffer.alloc(32, 8) }),
      report('of another firmware', { opaque: { 20: another } }),
      report('without a firmware identity', { opaque: { 20: null } }),
      report('without a version of the driver', { opaque: { 3: null } }),
      report('without a version of the firmware', { opaque: { 6: Buffer.alloc(0) } }),
      report('of another version of SPDM', { change: (messages) => messages.fill(0x12, 0, 1) }),
      report('to another request', { change: (messages) => messages.fill(0xe1, 1, 2) }),
      report('that nobody asked to sign', { change: (messages) => messages.fill(0, 2, 3) }),
      report('of one measurement', { change: (messages) => messages.fill(1, 3, 4) }),
      report('of another slot', { change: (messages) => messages.fill(1, 36, 37) }),
      report('with a measurement of another specification', { change: (messages) => messages.fill(2, 46, 47) }),
      report('with a measurement of the driver that differs', { measurements: measured(2) }),
      report('with a measurement of the firmware that differs', { measurements: measured(4) }),
      report('with a name that leads elsewhere', { opaque: { 17: Buffer.from('../../etc\0') } }),
      report('with opaque data of a version to come', { header: { major: 3 } }),
      report('with an opaque field of the invalid type', { opaque: { 255: Buffer.alloc(1) } }),
      { what: 'report of the FSP, without opaque data', evidence: mint({ opaque: none }, blackwell, 'BLACKWELL') },
      { what: 'report changed after signing', evidence: evidence(deviceEvidence(flippedBytes(one, 60), gpu.chain)) },
      {
        what: 'report of another device',
        evidence: evidence(deviceEvidence(mintReport(await testDevice(nvidia), { nonce }), gpu.chain)),
      },
      { what: 'device of another architecture', evidence: mint({}, blackwell) },
      { what: 'unknown architecture', evidence: mint({}, gpu, 'RUBIN') },
      { what: 'device of another root', evidence: mint({}, await testDevice(strange)) },
      { what: 'chain without its middle', evidence: evidence(deviceEvidence(one, [gpu.leaf, nvidia.root])) },
      {
        what: 'chain with a certificate too many',
        evidence: evidence(deviceEvidence(one, [...gpu.chain, nvidia.manifestAuthority])),
      },
      { what: 'device twice', evidence: evidence(deviceEvidence(one, gpu.chain), deviceEvidence(one, gpu.chain)) },
      {
        what: 'more devices than the cap',
        evidence: evidence(...Array<JsonObject>(17).fill(deviceEvidence(one, gpu.chain))),
      },
      { what: 'no session', evidence: genuine, against: { reportData: undefined } },
      { what: 'after the certificates ended', evidence: genuine, against: { now: new Date('2040-01-01') } },
      manifests('no manifests', {}),
      manifests('manifest of another version', gpuManifests(nvidia, { version: '571' })),
      manifests('manifest of a signer that is not NVIDIA’s', gpuManifests(nvidia, { signer: foreign })),
      manifests('manifest without measurements', gpuManifests(nvidia, { measurements: new Map() })),
      manifests(
        'manifest of a security version that the device does not tell',
        gpuManifests(nvidia, {}, { versions: new Map([[37, 5]]) }),
      ),
      manifests('manifest that was changed', {
        ...gpuManifests(nvidia),
        [driver]: (gpuManifests(nvidia)[driver] ?? '').replace(
          measurementOf(2).toString('hex'),
          another.toString('hex'),
        ),
      }),
      await lists('authority of the device in the revocation list', [nvidia.identity]),
      await lists('revocation list that has ended', [], new Date('2026-05-31')),
      {
        what: 'device that OCSP says is revoked',
        evidence: genuine,
        by: nvidiaVerifier({ ...rules(), revocation: async () => ({ status: 'revoked' }) }),
      },
      {
        what: 'device that OCSP does not know',
        evidence: genuine,
        by: nvidiaVerifier({ ...rules(), revocation: async () => ({ status: 'unknown' }) }),
      },
    ],
  };
}

export async function dpuMutations(tee: TeeName): Promise<MutatedTee> {
  const begun = new Date(now.getTime() - 600_000);
  const root = await issue(undefined, 'CN=DPU Root', { authority: true });
  const strangeRoot = await issue(undefined, 'CN=DPU Root', { authority: true });
  const extensions = [tcbInfo()];
  const device = await issue(root, 'CN=bluefield3', { extensions });
  const second = await issue(root, 'CN=bluefield3', { extensions });
  const strange = await issue(strangeRoot, 'CN=bluefield3', { extensions });
  const ended = await issue(root, 'CN=bluefield3', { extensions, notAfter: new Date('2025-01-01') });
  const alias = (by: Issued, options = {}) => issue(by, 'CN=alias', { notBefore: begun, ...options });
  const own = await alias(device);
  const evidence = (
    { key, certificate = device, signed = reportData }: { key?: Issued; certificate?: Issued; signed?: Buffer } = {},
    change: JsonObject = {},
  ): JsonObject => ({
    version: 1,
    devices: [
      {
        architecture: 'bluefield3',
        alias_cert: (key ?? own).der.toString('base64'),
        device_id_cert: certificate.der.toString('base64'),
        report_data_signature: sign('sha384', signed, (key ?? own).key).toString('base64'),
        ...change,
      },
    ],
  });
  const genuine = evidence();
  const [one] = genuine['devices'] as [JsonObject];
  const small = await issue(device, 'CN=alias', { notBefore: begun, curve: 'P-256' });
  return {
    tee,
    verifier: dpuVerifier(tee, { root: rootOf('test DPU', root), maxCertificateAgeSeconds: 3600 }),
    expectations: { reportData, trustedAttestationKeys: [], now },
    genuine,
    mutations: [
      { what: 'other report data', evidence: evidence({ signed: Buffer.alloc(48, 8) }) },
      {
        what: 'signature of the device',
        evidence: evidence({}, { report_data_signature: sign('sha384', reportData, device.key).toString('base64') }),
      },
      { what: 'empty signature', evidence: evidence({}, { report_data_signature: '' }) },
      { what: 'key that another device made', evidence: evidence({ key: await alias(second) }) },
      { what: 'key that the root made', evidence: evidence({ key: await alias(root) }) },
      { what: 'key on another curve', evidence: evidence({ key: small }) },
      { what: 'device of another root', evidence: evidence({ key: await alias(strange), certificate: strange }) },
      {
        what: 'device whose certificate has ended',
        evidence: evidence({ key: await alias(ended), certificate: ended }),
      },
      {
        what: 'key whose certificate has ended',
        evidence: evidence({ key: await alias(device, { notAfter: new Date(now.getTime() - 1) }) }),
      },
      { what: 'key that is too old', evidence: genuine, against: { now: new Date(now.getTime() + 3_600_000) } },
      { what: 'key to come', evidence: genuine, against: { now: new Date(begun.getTime() - 1000) } },
      { what: 'no session', evidence: genuine, against: { reportData: undefined } },
      { what: 'another session', evidence: genuine, against: { reportData: Buffer.alloc(48, 8) } },
      { what: 'initdata, which nothing binds', evidence: genuine, against: { initDataDigest: Buffer.alloc(32) } },
      { what: 'no device', evidence: { ...genuine, devices: [] } },
      { what: 'two devices', evidence: { ...genuine, devices: [one, one] } },
      { what: 'unknown version of the evidence', evidence: { ...genuine, version: 2 } },
      { what: 'certificate that is none', evidence: evidence({}, { device_id_cert: 'AAAA' }) },
      {
        what: 'certificate that is too large',
        evidence: evidence({}, { alias_cert: Buffer.alloc(9000).toString('base64') }),
      },
    ],
  };
}
