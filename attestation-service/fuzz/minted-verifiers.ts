import { createPublicKey, type JsonWebKey, randomBytes, sign } from 'node:crypto';
import { parseHygonAuthority } from '@sealpod/protocol/hygon';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { parseCertificate } from '../endorsements/certificate.ts';
import { IntelCollateral } from '../endorsements/intel/collateral.ts';
import type { IntelAnswer, IntelCollateralSource } from '../endorsements/intel/source.ts';
import { azureTdxVerifier } from '../verifiers/azure/tdx.ts';
import { azureReportData, azureTdxEvidence } from '../verifiers/azure/testing/mint.ts';
import { ccaVerifier } from '../verifiers/cca/index.ts';
import { ccaEvidence, TestPlatform } from '../verifiers/cca/testing/mint.ts';
import type { DcapRules } from '../verifiers/dcap/endorse.ts';
import { mintQuote, mintSource, platform, TestIntel } from '../verifiers/dcap/testing/mint.ts';
import { csvVerifier, dcuVerifier } from '../verifiers/hygon/index.ts';
import { csvEvidence, dcuReport, sm3Log, TestHygon } from '../verifiers/hygon/testing/mint.ts';
import { nitroVerifier } from '../verifiers/nitro/index.ts';
import { TestNitro } from '../verifiers/nitro/testing/mint.ts';
import { nvidiaVerifier } from '../verifiers/nvidia/index.ts';
import {
  deviceEvidence,
  tcbInfo as firmwareExtension,
  measurementOf,
  mintManifest,
  mintReport,
  testDevice,
  testNvidia,
} from '../verifiers/nvidia/testing/mint.ts';
import { dpuVerifier } from '../verifiers/nvidia-dpu/index.ts';
import { seVerifier } from '../verifiers/se/index.ts';
import { TestIbm, TestUltravisor } from '../verifiers/se/testing/mint.ts';
import { sgxVerifier } from '../verifiers/sgx/index.ts';
import { tdxVerifier } from '../verifiers/tdx/index.ts';
import { issue, rootOf } from '../verifiers/testing/authority.ts';
import type { Verifier } from '../verifiers/verifier.ts';
import { bytesOf, minted, type Target } from './target.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = azureReportData;
const expectations = { reportData, trustedAttestationKeys: [], now };
const code = async (verifier: Verifier, input: JsonValue, against: object = {}): Promise<string> =>
  (await verifier.verify(input, { ...expectations, ...against })).verdict.code;
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const root = (value: JsonValue | undefined) => rootOf('test', { der: bytesOf(value) });

const fmspc = platform.fmspc.toString('hex').toUpperCase();
const answerNames = ['tcb/tdx', 'tcb/sgx', 'qe/tdx', 'qe/sgx', 'crl/platform', 'crl/root'] as const;

/** Evidence of a verifier of Intel's quotes, and the test's Intel as JSON. */
function ofIntel(
  evidence: (intel: TestIntel) => readonly JsonValue[],
  verifierOf: (rules: DcapRules) => Verifier,
): Target {
  return minted(
    async () => {
      const intel = await TestIntel.create();
      const source = mintSource(intel);
      const answers = await Promise.all([
        source.tcbInfo('tdx', fmspc),
        source.tcbInfo('sgx', fmspc),
        source.qeIdentity('tdx'),
        source.qeIdentity('sgx'),
        source.pckRevocationList('platform'),
        source.rootRevocationList(),
      ]);
      const entries = answers.map((answer, index): [string, JsonObject] => [
        answerNames[index] ?? '',
        { document: base64(answer?.document ?? Buffer.alloc(0)), issuerChain: answer?.issuerChain ?? '' },
      ]);
      const under: JsonObject = { root: base64(intel.rootAuthority.der), ...Object.fromEntries(entries) };
      return { seeds: evidence(intel), under };
    },
    (input, under: JsonObject) => {
      const answer = async (name: (typeof answerNames)[number]): Promise<IntelAnswer> => {
        const { document, issuerChain } = under[name] as JsonObject;
        return { document: bytesOf(document), issuerChain: String(issuerChain) };
      };
      const source: IntelCollateralSource = {
        name: 'test',
        tcbInfo: (tee) => answer(`tcb/${tee}`),
        qeIdentity: (tee) => answer(`qe/${tee}`),
        pckRevocationList: () => answer('crl/platform'),
        rootRevocationList: () => answer('crl/root'),
      };
      const seen = { check: async () => undefined };
      const anchors = root(under['root']);
      const collateral = new IntelCollateral({ sources: [source], root: anchors, seen, channel: 'early' });
      return code(verifierOf({ root: anchors, collateral, acceptExpiredCollateral: false }), input);
    },
  );
}

/** A document of the test's Nitro, and its root. */
export async function mintNitro(): Promise<{
  readonly seeds: readonly { readonly document: string }[];
  readonly under: JsonObject;
}> {
  const nitro = await TestNitro.create(reportData);
  const document = nitro.document({ nonce: Buffer.from('nonce'), public_key: nitro.leaf.der });
  return { seeds: [{ document: base64(document) }], under: { root: base64(nitro.root.der) } };
}

const ofHygon = (hygon: TestHygon): JsonObject => ({
  root: base64(hygon.rootBytes()),
  chain: base64(Buffer.concat([hygon.hsk(), hygon.cek()])),
});
const chainSource = (chain: JsonValue | undefined) => ({ name: 'test', chipChain: async () => bytesOf(chain) });

/** Verifiers, each under authorities of its own. */
export const mintedVerifiers: Readonly<Record<string, Target>> = {
  tdx: ofIntel(
    (intel) =>
      (['tdx-4', 'tdx-5-1.0', 'tdx-5-1.5'] as const).map((kind) => ({
        quote: base64(mintQuote(intel, kind, { td: { reportData: regularise(reportData, 64) } })),
      })),
    tdxVerifier,
  ),
  sgx: ofIntel(
    (intel) =>
      (['sgx-3', 'sgx-4', 'sgx-5'] as const).map((kind) => ({
        quote: base64(mintQuote(intel, kind, { enclave: { reportData: regularise(reportData, 64) } })),
      })),
    sgxVerifier,
  ),
  'az-tdx-vtpm': ofIntel(
    (intel) => ([0, 1, 2] as const).map((version) => azureTdxEvidence(intel, { version })),
    azureTdxVerifier,
  ),
  cca: minted(
    async () => {
      const test = new TestPlatform();
      const { anchors, platforms } = test.stores();
      const bytes = (['first', '2023', '2024'] as const).map((profile) =>
        test.token(regularise(reportData, 64), Buffer.alloc(64), { profile }),
      );
      const [anchor] = anchors;
      const under = {
        instance: base64(test.instanceId),
        implementation: base64(test.implementationId),
        configuration: base64(test.configuration),
        key: (anchor?.key.export({ format: 'jwk' }) ?? {}) as JsonObject,
        components: (platforms[0]?.components ?? []).map(({ measurement, signer }) => [
          base64(measurement),
          base64(signer),
        ]),
      };
      return { seeds: bytes.map((token) => ccaEvidence(token)), under };
    },
    (input, { instance, implementation, configuration, key, components }) => {
      const implementationId = bytesOf(implementation);
      const anchor = {
        instanceId: bytesOf(instance),
        implementationId,
        key: createPublicKey({ key: key as JsonWebKey, format: 'jwk' }),
      };
      const references = components.map(([measurement, signer]) => ({
        measurement: bytesOf(measurement),
        signer: bytesOf(signer),
      }));
      const known = { implementationId, configuration: bytesOf(configuration), components: references };
      const stores = () => ({ anchors: [anchor], platforms: [known], realms: [] });
      return code(ccaVerifier({ allowNonCcaDebug: false }, { stores }), input);
    },
  ),
  csv: minted(
    async () => {
      const hygon = new TestHygon();
      const chain = { hsk: hygon.hsk(), cek: hygon.cek() };
      const { log, registers } = sm3Log([
        [1, 'kernel'],
        [2, 'initrd'],
      ]);
      const rtmrs = [0, 1, 2, 3, 4].map((index) => registers.get(index) ?? Buffer.alloc(32));
      const fields = { reportData: regularise(reportData, 64), rtmrs };
      const seeds = [
        csvEvidence(hygon.report(1, fields), hygon.pek(), { version: 1, chain }),
        csvEvidence(hygon.report(2, fields), hygon.pek(), { chain, log }),
        csvEvidence(hygon.report(2, fields), hygon.pek()),
      ];
      return { seeds, under: ofHygon(hygon) };
    },
    (input, under) =>
      code(csvVerifier(parseHygonAuthority(bytesOf(under['root'])), [chainSource(under['chain'])]), input),
  ),
  hygondcu: minted(
    async () => {
      const hygon = new TestHygon();
      const reports = ['DCU0000000000001', 'DCU0000000000002'].map((serial) =>
        dcuReport(hygon, serial, regularise(reportData, 64)),
      );
      return { seeds: [{ attestation_reports: reports }], under: ofHygon(hygon) };
    },
    (input, under) =>
      code(dcuVerifier(parseHygonAuthority(bytesOf(under['root'])), [chainSource(under['chain'])]), input),
  ),
  se: minted(
    async () => {
      const ibm = await TestIbm.create();
      const trust = await ibm.trust();
      const key = randomBytes(32);
      const challenge = seVerifier(trust, key, () => now).challenge?.('') ?? '';
      const evidence = (await TestUltravisor.of(ibm.host)).attest(challenge, reportData);
      const under = {
        key: base64(key),
        challenge,
        root: base64(ibm.root.der),
        certificates: [ibm.signer, ibm.authority].map(({ der }) => base64(der)),
        lists: trust.revocationLists.map(base64),
        host: base64(ibm.host.der),
        tags: trust.imageHeaderTags.map(base64),
      };
      return { seeds: [evidence, JSON.stringify(evidence)], under };
    },
    (input, { key, challenge, certificates, lists, host, tags, ...under }) => {
      const trust = {
        root: root(under.root),
        certificates: certificates.map((der) => parseCertificate(bytesOf(der))),
        revocationLists: lists.map(bytesOf),
        hostKeyDocuments: [parseCertificate(bytesOf(host))],
        imageHeaderTags: tags.map(bytesOf),
      };
      return code(
        seVerifier(trust, bytesOf(key), () => now),
        input,
        { nonce: challenge },
      );
    },
  ),
  nvidia: minted(
    async () => {
      const nvidia = await testNvidia();
      const hopper = await testDevice(nvidia);
      const blackwell = await testDevice(nvidia, 'GB100 A01 FSP FMC LF', firmwareExtension());
      const nonce = reportData.subarray(0, 32);
      const manifest = (version: string, indices: readonly number[]): string =>
        mintManifest(nvidia, {
          version,
          measurements: new Map(indices.map((index) => [index, [measurementOf(index + 1)]])),
        });
      const devices = [
        deviceEvidence(mintReport(hopper, { nonce }), hopper.chain),
        deviceEvidence(mintReport(blackwell, { nonce, header: true }), blackwell.chain, 'BLACKWELL', 'GPU-2'),
      ];
      const under = {
        root: base64(nvidia.root.der),
        manifestRoot: base64(nvidia.manifestRoot.der),
        driver: manifest('570.10', [1, 2]),
        firmware: manifest('96.00.9F.00.01', [3]),
      };
      return { seeds: [{ device_evidence_list: devices }], under };
    },
    (input, { driver, firmware, ...under }) => {
      const manifest = async (id: string): Promise<Buffer> => Buffer.from(id.includes('DRIVER') ? driver : firmware);
      const manifests = {
        root: root(under.manifestRoot),
        acceptExpiredSigners: false,
        sources: [{ name: 'test', manifest }],
      };
      return code(nvidiaVerifier({ root: root(under.root), manifests }), input);
    },
  ),
  'nvidia-dpu': minted(
    async () => {
      const anchor = await issue(undefined, 'CN=DPU Root', { authority: true });
      const device = await issue(anchor, 'CN=bluefield3', { extensions: [firmwareExtension()] });
      const alias = await issue(device, 'CN=alias', { notBefore: new Date(now.getTime() - 60_000) });
      const one = {
        architecture: 'bluefield3',
        alias_cert: base64(alias.der),
        device_id_cert: base64(device.der),
        report_data_signature: base64(sign('sha384', reportData, alias.key)),
      };
      return { seeds: [{ version: 1, devices: [one] }], under: { root: base64(anchor.der) } };
    },
    (input, under) =>
      code(dpuVerifier('nvidia-dpu', { root: root(under.root), maxCertificateAgeSeconds: 3600 }), input),
  ),
  'aws-nitro': minted(mintNitro, (input, under) =>
    code(nitroVerifier({ root: root(under['root']), allowDebug: false }), input),
  ),
};
