import 'reflect-metadata';
import { createHash, sign } from 'node:crypto';
import { CRLDistributionPointsExtension, Extension } from '@peculiar/x509';
import type { JsonObject } from '@sealpod/protocol/json';
import type { ManifestSource } from '../../../endorsements/nvidia/manifests.ts';
import { type Issued, issue, issueRevocationList, ownBuffer, pem, rootOf } from '../../testing/authority.ts';
import type { NvidiaRules } from '../index.ts';
import type { RevocationListRules } from '../revocation-lists.ts';

/** Digest of the firmware that a test's devices run. */
export const firmwareDigest = createHash('sha384').update('firmware').digest();
const sha384 = Buffer.from('0609608648016503040202', 'hex');

function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const { length } = content;
  const head = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

const firmwareId = (digest: Buffer): Buffer => der(0x30, sha384, der(4, digest));

/** TcbInfo as Blackwell's certificates have it: two identities, the second of zeros. */
export function tcbInfo(digests: readonly Buffer[] = [firmwareDigest, Buffer.alloc(48)], nested = false): Extension {
  const list = Buffer.concat(digests.map(firmwareId));
  const value = der(0x30, der(0x80, Buffer.from('NVIDIA')), der(0xa6, nested ? der(0x30, list) : list));
  return new Extension('2.23.133.5.4.1.1', false, ownBuffer(value));
}

/** CompositeDeviceID as Hopper's and the switch's certificates have it. */
export function compositeDeviceId(digest = firmwareDigest): Extension {
  const key = der(0x30, der(0x30, sha384), der(3, Buffer.alloc(8)));
  return new Extension(
    '2.23.133.5.4.1',
    false,
    ownBuffer(der(0x30, der(2, Buffer.from([1])), key, firmwareId(digest))),
  );
}

/** A test's NVIDIA: the authorities of devices and of manifests. */
export interface TestNvidia {
  readonly root: Issued;
  readonly identity: Issued;
  readonly manifestRoot: Issued;
  readonly manifestAuthority: Issued;
  readonly manifestSigner: Issued;
}

export async function testNvidia(): Promise<TestNvidia> {
  const root = await issue(undefined, 'CN=Test Device Identity CA', { authority: true });
  // As NVIDIA's own certificates have them; what a device certifies names none.
  const list = (name: string) => new CRLDistributionPointsExtension([`http://crl.test/crl/${name}.crl`]);
  const identity = await issue(root, 'CN=Test Identity', { authority: true, extensions: [list('l1-root')] });
  const manifestRoot = await issue(undefined, 'CN=Test Manifest Root', { authority: true });
  const manifestAuthority = await issue(manifestRoot, 'CN=Test Manifest CA', {
    authority: true,
    extensions: [list('corim-l1')],
  });
  const manifestSigner = await issue(manifestAuthority, 'CN=Test Manifest Signer', {
    notAfter: new Date('2030-01-01'),
  });
  return { root, identity, manifestRoot, manifestAuthority, manifestSigner };
}

/** A revocation list of May 2026, DER. */
export function revocationList(
  issuer: Issued,
  revoked: readonly Issued[] = [],
  nextUpdate = new Date('2026-07-01T00:00:00Z'),
  thisUpdate = new Date('2026-05-01T00:00:00Z'),
): Promise<Buffer> {
  return issueRevocationList(issuer, { revoked, thisUpdate, nextUpdate });
}

/** Rules of lists by the path of their distribution point, without a memory of newer ones unless one is given. */
export function listRules(
  texts: Readonly<Record<string, Buffer>>,
  seen: RevocationListRules['seen'] = { check: async () => undefined },
): RevocationListRules {
  return { sources: [{ name: 'test', list: async (path) => texts[path] }], seen };
}

/** A device: the certificate of its key, and the chain, leaf first. */
export interface TestDevice {
  readonly leaf: Issued;
  readonly chain: readonly Issued[];
}

export async function testDevice(
  { identity, root }: TestNvidia,
  name = 'GH100 A01 GSP FMC LF',
  extension: Extension | undefined = compositeDeviceId(),
): Promise<TestDevice> {
  const leaf = await issue(identity, `CN=${name}`, { extensions: extension === undefined ? [] : [extension] });
  return { leaf, chain: [leaf, identity, root] };
}

/** What a test makes another about a report. */
export interface ReportOptions {
  readonly nonce: Buffer;
  readonly opaque?: Readonly<Record<number, Buffer | null>>;
  readonly measurements?: ReadonlyMap<number, Buffer>;
  /** The form with a header, in which each field has a kind. */
  readonly header?: boolean | { readonly major: number };
  /** Kinds of values by type of the field; 1 by default. */
  readonly kinds?: Readonly<Record<number, number>>;
  /** Changes the messages before they are signed. */
  readonly change?: (messages: Buffer) => void;
}

/** Measurement `index` of a test's devices. */
export function measurementOf(index: number): Buffer {
  return createHash('sha384').update(`measurement ${index}`).digest();
}

const text = (value: string): Buffer => Buffer.from(`${value}\0`);

/** Opaque fields of a GPU. */
export const gpuOpaque: Readonly<Record<number, Buffer>> = {
  3: text('570.10'),
  6: Buffer.from('009f009601000000', 'hex'),
  11: Buffer.from([0xaa]),
  12: Buffer.from('0100000002000000', 'hex'),
  15: text('882'),
  17: text('1010'),
  18: text('0200'),
  20: firmwareDigest,
};

/** Opaque fields of a switch. */
export const switchOpaque: Readonly<Record<number, Buffer>> = { 6: text('96.10.55.00.01') };

function number(value: number, length: 2 | 3): Buffer {
  const buffer = Buffer.alloc(length);
  buffer.writeUIntLE(value, 0, length);
  return buffer;
}

/** The opaque data of a report. */
export function mintOpaqueData({
  opaque,
  header = false,
  kinds = {},
}: Pick<ReportOptions, 'opaque' | 'header' | 'kinds'>): Buffer {
  const fields = Object.entries({ ...gpuOpaque, ...opaque }).flatMap(([type, value]) =>
    value === null
      ? []
      : [
          number(Number(type), 2),
          ...(header === false ? [] : [number(kinds[Number(type)] ?? 1, 2)]),
          number(value.length, 2),
          value,
        ],
  );
  const start = header === false ? Buffer.alloc(0) : Buffer.from('4e5644414f44000001000000', 'hex');
  if (typeof header === 'object') start.writeUInt8(header.major, 8);
  return Buffer.concat([start, ...fields]);
}

/** The messages of a report, without a signature. */
function messages(options: ReportOptions): Buffer {
  const { nonce, measurements, change } = options;
  const values = measurements ?? new Map(Array.from({ length: 40 }, (_, at) => [at + 1, measurementOf(at + 1)]));
  const record = Buffer.concat(
    [...values].map(([index, value]) =>
      Buffer.concat([
        Buffer.from([index, 1]),
        number(value.length + 3, 2),
        Buffer.from([1]),
        number(value.length, 2),
        value,
      ]),
    ),
  );
  const opaqueData = mintOpaqueData(options);
  const bytes = Buffer.concat([
    Buffer.from([0x11, 0xe0, 1, 0xff]),
    nonce,
    Buffer.from([0]),
    Buffer.from([0x11, 0x60, 0, 0, values.size]),
    number(record.length, 3),
    record,
    createHash('sha256').update('device nonce').digest(),
    number(opaqueData.length, 2),
    opaqueData,
  ]);
  change?.(bytes);
  return bytes;
}

/** A signed report. */
export function mintReport({ leaf }: TestDevice, options: ReportOptions): Buffer {
  const signed = messages(options);
  return Buffer.concat([signed, sign('sha384', signed, { key: leaf.key, dsaEncoding: 'ieee-p1363' })]);
}

/** A device as evidence has it. */
export function deviceEvidence(report: Buffer, chain: readonly Issued[], arch = 'HOPPER', uuid = 'GPU-1'): JsonObject {
  return { arch, uuid, evidence: report.toString('base64'), certificate: Buffer.from(pem(chain)).toString('base64') };
}

/** What a test makes another about a manifest. */
export interface ManifestOptions {
  readonly version: string;
  /** By index of the manifest, which counts from 0; each a list of alternatives. */
  readonly measurements: ReadonlyMap<number, readonly Buffer[]>;
  /** Least security versions by type of the field of opaque data. */
  readonly versions?: ReadonlyMap<number, number>;
  readonly signer?: Issued;
}

/** A signed reference manifest, in its canonical form already. */
export function mintManifest(
  nvidia: TestNvidia,
  { version, measurements, versions = new Map(), signer = nvidia.manifestSigner }: ManifestOptions,
): string {
  const resources = [...measurements].map(([index, values]) => {
    const hashes = values.map((value, number) => ` ns2:Hash${number}="${value.toString('hex')}"`).join('');
    return `<ns0:Resource active="True" alternatives="${values.length}" index="${index}" name="Measurement_${index}" size="48" type="Measurement"${hashes}></ns0:Resource>`;
  });
  const least = [...versions].map(
    ([type, svn]) =>
      `<ns0:Resource xmlns:ns3="https://docs.nvidia.com/attestation/specs/latest/opaque-data.html" active="True" index="${0x1000 + type}" name="SVN_${type}" type="Measurement" ns3:includeInResult="True" ns3:minSvn="${svn}"></ns0:Resource>`,
  );
  const inactive = `<ns0:Resource active="False" alternatives="1" index="99" name="Measurement_99" size="48" type="Measurement" ns2:Hash0="${'00'.repeat(48)}"></ns0:Resource>`;
  const content = (signature: string): string =>
    `<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" name="GH100" tagId="tag"><ns0:Meta xmlns:ns1="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/" colloquialVersion="${version}" ns1:FirmwareManufacturerId="5703"></ns0:Meta><ns0:Payload>${resources.join('')}${least.join('')}${inactive}</ns0:Payload>${signature}</SoftwareIdentity>`;
  const digest = createHash('sha384').update(content('')).digest('base64');
  const info = (space: string): string =>
    `<ds:SignedInfo${space}><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"></ds:SignatureMethod><ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform><ds:Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11"></ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"></ds:DigestMethod><ds:DigestValue>${digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>`;
  // Inclusive canonical XML shows all namespaces in scope.
  const inScope =
    ' xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"';
  const value = sign('sha384', Buffer.from(info(inScope)), { key: signer.key, dsaEncoding: 'ieee-p1363' });
  const certificates = [signer, nvidia.manifestAuthority, nvidia.manifestRoot].map(
    ({ der: bytes }) => `<ds:X509Certificate>${bytes.toString('base64')}</ds:X509Certificate>`,
  );
  return content(
    `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">${info('')}<ds:SignatureValue>${value.toString('base64')}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>${certificates.join('')}</ds:X509Data></ds:KeyInfo></ds:Signature>`,
  );
}

/** The manifests of a test's GPU, by their ids: measurements 2, 3 and 11 of the driver's, 4 and 36 of the firmware's. */
export function gpuManifests(
  nvidia: TestNvidia,
  driver: Partial<ManifestOptions> = {},
  firmware: Partial<ManifestOptions> = {},
): Record<string, string> {
  const references = (indices: readonly number[]): Map<number, Buffer[]> =>
    new Map(indices.map((index) => [index, [Buffer.alloc(48), measurementOf(index + 1)]]));
  return {
    'NV_GPU_DRIVER_GH100_570.10': mintManifest(nvidia, {
      version: '570.10',
      measurements: references([1, 2, 10]),
      ...driver,
    }),
    NV_GPU_VBIOS_1010_0200_882_96009F0001: mintManifest(nvidia, {
      version: '96.00.9F.00.01',
      measurements: references([3, 35]),
      ...firmware,
    }),
  };
}

/** Rules under a test's NVIDIA, whose manifests are held against. */
export function nvidiaRules(
  nvidia: TestNvidia,
  manifests = gpuManifests(nvidia),
): Required<Pick<NvidiaRules, 'root' | 'manifests'>> {
  return {
    root: rootOf('test NVIDIA', nvidia.root),
    manifests: {
      root: rootOf('test manifests', nvidia.manifestRoot),
      acceptExpiredSigners: false,
      sources: [manifestSource(manifests)],
    },
  };
}

/** Manifests as a source. */
export function manifestSource(texts: Readonly<Record<string, string>>): ManifestSource {
  return {
    name: 'test',
    manifest: async (id) => (Object.hasOwn(texts, id) ? Buffer.from(texts[id] ?? '') : undefined),
  };
}
