import 'reflect-metadata';
import {
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  type KeyObject,
  randomBytes,
  webcrypto,
} from 'node:crypto';
import {
  BasicConstraintsExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509CertificateGenerator,
  X509CrlGenerator,
} from '@peculiar/x509';
import { parseSeRequest } from '@sealpod/protocol/se';
import { parseCertificate } from '../../../endorsements/certificate.ts';
import { enrolRoots } from '../../../endorsements/enrolled-roots.ts';
import { ultravisorPoint } from '../../../endorsements/ibm/host-keys.ts';
import type { SeTrust } from '../trust.ts';
import { measure } from '../verify.ts';

const curve = { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' } as const;
const starts = new Date('2024-01-01T00:00:00Z');
const ends = new Date('2034-01-01T00:00:00Z');
export const signerName =
  'C=US, ST=New York, L=Poughkeepsie, O=International Business Machines Corporation, CN=International Business Machines Corporation, OU=IBM Z Host Key Signing Service';

/** One certificate and its key. */
export interface Issued {
  readonly keys: webcrypto.CryptoKeyPair;
  readonly subject: string;
  readonly der: Buffer;
}

/** What a test makes another about a certificate. */
export interface IssueFaults {
  readonly issuerName?: string;
  readonly notAfter?: Date;
  readonly curve?: 'P-256' | 'P-521';
}

export async function issue(
  issuer: Issued | undefined,
  subject: string,
  extensions: Extension[],
  { issuerName, notAfter = ends, curve: namedCurve = 'P-521' }: IssueFaults = {},
): Promise<Issued> {
  const keys = await webcrypto.subtle.generateKey({ ...curve, namedCurve }, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.create({
    serialNumber: randomBytes(8).toString('hex').replace(/^./, '1'),
    issuer: issuerName ?? issuer?.subject ?? subject,
    subject,
    notBefore: starts,
    notAfter,
    publicKey: keys.publicKey,
    signingKey: (issuer?.keys ?? keys).privateKey,
    signingAlgorithm: curve,
    extensions,
  });
  return { keys, subject, der: Buffer.from(certificate.rawData) };
}

function authority(): Extension[] {
  return [
    new BasicConstraintsExtension(true, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ];
}

/** A revocation list. */
export async function revocationList(signer: Issued, revoked: readonly Issued[], nextUpdate = ends): Promise<Buffer> {
  const list = await X509CrlGenerator.create({
    issuer: signer.subject,
    thisUpdate: starts,
    nextUpdate,
    signingAlgorithm: curve,
    signingKey: signer.keys.privateKey,
    entries: revoked.map(({ der }) => ({
      serialNumber: parseCertificate(der).x509.serialNumber,
      revocationDate: starts,
    })),
  });
  return Buffer.from(list.rawData);
}

/** A test's IBM: root, authority, signing key, and the host key of one machine. */
export class TestIbm {
  readonly root: Issued;
  readonly authority: Issued;
  readonly signer: Issued;
  readonly host: Issued;

  private constructor(root: Issued, intermediate: Issued, signer: Issued, host: Issued) {
    this.root = root;
    this.authority = intermediate;
    this.signer = signer;
    this.host = host;
  }

  static async create(): Promise<TestIbm> {
    const root = await issue(undefined, 'CN=Test Root', authority());
    const intermediate = await issue(root, 'CN=Test Authority', authority());
    const signer = await issue(intermediate, signerName, [
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    ]);
    return new TestIbm(root, intermediate, signer, await TestIbm.hostKey(signer));
  }

  static hostKey(signer: Issued, faults: IssueFaults = {}): Promise<Issued> {
    const usage = new KeyUsagesExtension(KeyUsageFlags.keyAgreement, true);
    return issue(signer, 'CN=Host Key Document, O=International Business Machines Corporation', [usage], faults);
  }

  /** What a verifier is given to trust this machine. */
  async trust(change: Partial<SeTrust> = {}): Promise<SeTrust> {
    const [root] = enrolRoots([{ name: 'test root', certificates: pem(this.root.der), simulated: false }]);
    if (root === undefined) throw new Error('no root');
    return {
      root,
      certificates: [this.signer, this.authority].map(({ der }) => parseCertificate(der)),
      revocationLists: [await revocationList(this.signer, [])],
      hostKeyDocuments: [parseCertificate(this.host.der)],
      imageHeaderTags: [imageTags],
      ...change,
    };
  }
}

/** Digests and tag of the image that tests run. */
export const imageTags = randomBytes(208);

export function pem(der: Buffer, label = 'CERTIFICATE'): string {
  return `-----BEGIN ${label}-----\n${der.toString('base64')}\n-----END ${label}-----\n`;
}

/** A header with the given digests and tag. */
export function imageHeader(tags: Buffer, size = 0x280): Buffer {
  const header = Buffer.alloc(size);
  header.write('IBMSecEx', 0, 'latin1');
  header.writeUInt32BE(0x100, 8);
  header.writeUInt32BE(size, 12);
  tags.copy(header, 0x1a0 - 192, 0, 192);
  tags.copy(header, size - 16, 192);
  return header;
}

/** What a test makes another about what an Ultravisor answers. */
export interface UltravisorFaults {
  readonly tags?: Buffer;
  readonly additionalData?: Buffer;
}

/** The Ultravisor of a machine: opens requests with the host key, and measures. */
export class TestUltravisor {
  readonly #key: KeyObject;
  readonly #hash: Buffer;

  private constructor(key: KeyObject) {
    this.#key = key;
    this.#hash = createHash('sha256')
      .update(ultravisorPoint(createPublicKey(key.export({ format: 'pem', type: 'pkcs8' }))))
      .digest();
  }

  static async of(host: Issued): Promise<TestUltravisor> {
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', host.keys.privateKey));
    return new TestUltravisor(createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }));
  }

  get hash(): Buffer {
    return this.#hash;
  }

  /** Opens a request, or throws where it is for another machine. */
  open(blob: Buffer): { readonly measurementKey: Buffer; readonly nonce: Buffer } {
    if (blob.readUInt32BE(12) !== blob.length) throw new Error('length');
    const slots = blob.readUInt8(39);
    const encrypted = blob.readUInt32BE(44);
    const start = 48 + 16 + 160;
    for (let index = 0; index < slots; index += 1) {
      const slot = blob.subarray(start + index * 80, start + (index + 1) * 80);
      if (!slot.subarray(0, 32).equals(this.#hash)) continue;
      const point = blob.subarray(64, 64 + 160);
      const [x = '', y = ''] = [point.subarray(14, 80), point.subarray(94, 160)].map((part) =>
        part.toString('base64url'),
      );
      const publicKey = createPublicKey({ key: { kty: 'EC', crv: 'P-521', x, y }, format: 'jwk' });
      const shared = diffieHellman({ privateKey: this.#key, publicKey });
      const wrapping = createHash('sha256')
        .update(Buffer.concat([shared, Buffer.from([0, 0, 0, 1])]))
        .digest();
      const protection = decrypt(wrapping, Buffer.alloc(12), slot.subarray(32), Buffer.alloc(0));
      const open = blob.subarray(0, start + slots * 80);
      const secrets = decrypt(protection, blob.subarray(16, 28), blob.subarray(open.length), open);
      if (secrets.length !== encrypted) throw new Error('size of the encrypted part');
      return { measurementKey: secrets.subarray(0, 64), nonce: secrets.subarray(64) };
    }
    throw new Error('no key slot for this machine');
  }

  /** Evidence for a challenge, as the guest sends it. */
  attest(challenge: string, reportData: Buffer, faults: UltravisorFaults = {}): Record<string, string> {
    const request = parseSeRequest(challenge);
    const { measurementKey, nonce } = this.open(request.requestBlob);
    const evidence = {
      imageHeaderTags: faults.tags ?? request.imageHeaderTags,
      configurationId: randomBytes(16),
      userData: reportData,
      additionalData: faults.additionalData ?? Buffer.concat([this.#hash, this.#hash]),
      sealedMeasurementKey: request.sealedMeasurementKey,
      sealedRequestNonce: request.sealedRequestNonce,
    };
    return {
      measurement: measure(evidence, measurementKey, nonce).toString('base64'),
      additional_data: evidence.additionalData.toString('base64'),
      user_data: evidence.userData.toString('base64'),
      cuid: evidence.configurationId.toString('base64'),
      encr_measurement_key: evidence.sealedMeasurementKey.toString('base64'),
      encr_request_nonce: evidence.sealedRequestNonce.toString('base64'),
      image_hdr_tags: evidence.imageHeaderTags.toString('base64'),
    };
  }
}

function decrypt(key: Buffer, iv: Buffer, sealed: Buffer, additional: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, iv).setAAD(additional);
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]);
}
