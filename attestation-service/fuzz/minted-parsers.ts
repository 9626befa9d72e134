import { csvPageBytes, parseCsvReport, parseHygonAuthority, parseHygonKey } from '@sealpod/protocol/hygon';
import type { JsonValue } from '@sealpod/protocol/json';
import { parseNitroDocument } from '@sealpod/protocol/nitro';
import { parseNvidiaReport, parseOpaqueData } from '@sealpod/protocol/nvidia';
import { parseSeHeaderTags, parseSeRequest } from '@sealpod/protocol/se';
import { parseCertificate, parsePemCertificates } from '../endorsements/certificate.ts';
import { firmwareIds } from '../endorsements/dice.ts';
import { revocationListBytes } from '../endorsements/intel/revocation-list-bytes.ts';
import { verifyPckRevocationList, verifySignedDocument } from '../endorsements/intel/signed-document.ts';
import { parseEnclaveIdentity, parseTcbInfo } from '../endorsements/intel/tcb-info.ts';
import { readPckCertificate } from '../verifiers/dcap/pck-certificate.ts';
import { enclaveIdentity, mintSource, platform, TestIntel, tcbInfo } from '../verifiers/dcap/testing/mint.ts';
import { TestHygon } from '../verifiers/hygon/testing/mint.ts';
import { deviceClaims } from '../verifiers/nvidia/claims.ts';
import { readReferenceManifest } from '../verifiers/nvidia/reference-manifest.ts';
import {
  compositeDeviceId,
  tcbInfo as firmwareExtension,
  measurementOf,
  mintManifest,
  mintOpaqueData,
  mintReport,
  testDevice,
  testNvidia,
} from '../verifiers/nvidia/testing/mint.ts';
import { imageHeader, imageTags } from '../verifiers/se/testing/mint.ts';
import { rootOf } from '../verifiers/testing/authority.ts';
import { mintNitro } from './minted-verifiers.ts';
import { bytesOf, minted, mintedParser, type Target } from './target.ts';

const now = new Date('2026-06-01T00:00:00Z');
const nonce = Buffer.alloc(32, 5);
const fmspc = platform.fmspc.toString('hex').toUpperCase();

/** A structure of a fixed size: what a mutation cut off is made up for. */
const sized = (bytes: Buffer, size: number): Buffer =>
  Buffer.concat([bytes.subarray(0, size), Buffer.alloc(Math.max(size - bytes.length, 0))]);

/** Parsers of what comes with evidence or from services of vendors. */
export const mintedParsers: Readonly<Record<string, Target>> = {
  'csv-report': mintedParser(
    (bytes) => {
      const page = sized(bytes, csvPageBytes);
      parseCsvReport(page, Buffer.from('ATTESTATION_EXT\0', 'latin1'), 1);
      parseCsvReport(page, Buffer.alloc(16), 0);
      parseCsvReport(bytes, Buffer.alloc(16), 0);
    },
    async () => {
      const hygon = new TestHygon();
      return ([1, 2] as const).map((version) => hygon.report(version, { reportData: Buffer.alloc(64) }));
    },
  ),
  'hygon-certificate': mintedParser(
    (bytes) => (bytes.length < 1400 ? parseHygonAuthority(sized(bytes, 832)) : parseHygonKey(sized(bytes, 2084))),
    async () => {
      const hygon = new TestHygon();
      return [hygon.hsk(), hygon.cek(), hygon.pek()];
    },
  ),
  'se-header': mintedParser(parseSeHeaderTags, async () => {
    const image = Buffer.alloc(0xd000);
    image.write('SeImgLnx', 0xc000, 'latin1');
    image.writeBigUInt64BE(0x9000n, 0xc008);
    imageHeader(imageTags).copy(image, 0x9000);
    return [imageHeader(imageTags), image];
  }),
  'se-request': mintedParser(
    (bytes) => parseSeRequest(bytes.toString('utf8')),
    async () => {
      const members = { request_blob: 'AAAA', measurement_size: 64, additional_size: 64, image_hdr_tags: imageTags };
      const sealed = { encr_measurement_key: 'AAAA', encr_request_nonce: 'AAAA' };
      const image_hdr_tags = imageTags.toString('base64');
      return [Buffer.from(JSON.stringify({ ...members, ...sealed, image_hdr_tags }))];
    },
  ),
  'nvidia-report': mintedParser(
    (bytes) => {
      const report = parseNvidiaReport(bytes);
      for (const architecture of ['HOPPER', 'BLACKWELL', 'LS10'] as const)
        deviceClaims({ architecture, uuid: '', report: bytes, certificates: '' }, report);
    },
    async () => {
      const device = await testDevice(await testNvidia());
      return [true, false].map((header) => mintReport(device, { nonce, header, opaque: { 22: Buffer.alloc(64, 3) } }));
    },
  ),
  'nvidia-opaque-data': mintedParser(parseOpaqueData, async () =>
    [true, false].map((header) => mintOpaqueData({ header, opaque: { 36: Buffer.alloc(4), 77: Buffer.alloc(3) } })),
  ),
  'nvidia-manifest': mintedParser(
    (bytes) => readReferenceManifest(bytes.toString('utf8')),
    async () => {
      const measurements = new Map([1, 2, 3].map((index) => [index, [measurementOf(index), measurementOf(0)]]));
      return [Buffer.from(mintManifest(await testNvidia(), { version: '570.10', measurements }))];
    },
  ),
  'nvidia-device-certificate': mintedParser(
    (bytes) => firmwareIds(parseCertificate(bytes)),
    async () => {
      const nvidia = await testNvidia();
      const extensions = [compositeDeviceId(), firmwareExtension(), firmwareExtension(undefined, true)];
      return Promise.all(
        extensions.map(async (extension) => (await testDevice(nvidia, undefined, extension)).leaf.der),
      );
    },
  ),
  'nitro-document': mintedParser(parseNitroDocument, async () => {
    const { seeds } = await mintNitro();
    return seeds.map(({ document }) => bytesOf(document));
  }),
  'pck-certificate': mintedParser(
    (bytes) => readPckCertificate(parseCertificate(bytes)),
    async () => [(await TestIntel.create()).machine.der],
  ),
  'pem-certificates': mintedParser(
    (bytes) => parsePemCertificates(bytes.toString('latin1')),
    async () => [Buffer.from((await TestIntel.create()).chain())],
  ),
  'tcb-info': documentParser(parseTcbInfo, [tcbInfo('tdx'), tcbInfo('sgx')]),
  'enclave-identity': documentParser(parseEnclaveIdentity, [enclaveIdentity('tdx'), enclaveIdentity('sgx')]),
  'intel-signed-document': mintedParser(
    (document, { issuerChain, root }) => {
      const answer = { document, issuerChain: String(issuerChain) };
      const enrolled = rootOf('test Intel', { der: bytesOf(root) });
      verifySignedDocument(answer, 'tcbInfo', parseTcbInfo, enrolled, now);
    },
    async () => {
      const intel = await TestIntel.create();
      const answers = await Promise.all((['tdx', 'sgx'] as const).map((tee) => mintSource(intel).tcbInfo(tee, fmspc)));
      const issuerChain = answers[0]?.issuerChain ?? '';
      const root = intel.rootAuthority.der.toString('base64');
      return { seeds: answers.map((answer) => answer?.document ?? Buffer.alloc(0)), under: { issuerChain, root } };
    },
  ),
  'intel-revocation-list': mintedParser(
    (bytes, { issuerChain, root }) => {
      const answer = { document: revocationListBytes(bytes), issuerChain: String(issuerChain) };
      verifyPckRevocationList(answer, 'platform', rootOf('test Intel', { der: bytesOf(root) }), now);
    },
    async () => {
      const intel = await TestIntel.create();
      const answer = await mintSource(intel, { pckList: { revoked: [intel.machine] } }).pckRevocationList('platform');
      const der = answer?.document ?? Buffer.alloc(0);
      const root = intel.rootAuthority.der.toString('base64');
      const under = { issuerChain: answer?.issuerChain ?? '', root };
      return { seeds: [der, Buffer.from(der.toString('hex'))], under };
    },
  ),
};

function documentParser(parse: (value: JsonValue) => unknown, documents: readonly object[]): Target {
  return minted(
    async () => ({ seeds: documents as readonly JsonValue[], under: {} }),
    (input) => {
      parse(input);
      return 'OK';
    },
  );
}
