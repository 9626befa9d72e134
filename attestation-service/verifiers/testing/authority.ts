import 'reflect-metadata';
import { createPrivateKey, type KeyObject, webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509CertificateGenerator,
  X509CrlGenerator,
} from '@peculiar/x509';
import { parseCertificate } from '../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';

const curves = {
  'P-256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'P-384': { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
} as const;

/** One certificate of a test's authority, and its key. */
export interface Issued {
  readonly subject: string;
  readonly der: Buffer;
  readonly key: KeyObject;
  readonly signing: webcrypto.CryptoKey;
  readonly curve: keyof typeof curves;
}

/** What a test makes another about a certificate. */
export interface IssueOptions {
  readonly authority?: boolean;
  readonly extensions?: readonly Extension[];
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  /** Of its key; default P-384. */
  readonly curve?: keyof typeof curves;
}

/** How a key of a test's authority signs. */
function signingAlgorithm({ curve }: Pick<Issued, 'curve'>): (typeof curves)[keyof typeof curves] {
  return curves[curve];
}

/** Issues a certificate for a new key; without an issuer it is self-signed. */
export async function issue(issuer: Issued | undefined, subject: string, options: IssueOptions = {}): Promise<Issued> {
  const { authority = false, extensions = [], notBefore, notAfter, curve = 'P-384' } = options;
  const keys = await webcrypto.subtle.generateKey(curves[curve], true, ['sign', 'verify']);
  const usage = authority ? KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign : KeyUsageFlags.digitalSignature;
  const certificate = await X509CertificateGenerator.create({
    issuer: issuer?.subject ?? subject,
    subject,
    notBefore: notBefore ?? new Date('2024-01-01T00:00:00Z'),
    notAfter: notAfter ?? new Date('2034-01-01T00:00:00Z'),
    publicKey: keys.publicKey,
    signingKey: issuer?.signing ?? keys.privateKey,
    signingAlgorithm: signingAlgorithm(issuer ?? { curve }),
    extensions: [
      ...(authority ? [new BasicConstraintsExtension(true, undefined, true)] : []),
      new KeyUsagesExtension(usage, true),
      ...extensions,
    ],
  });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  return {
    subject,
    der: Buffer.from(certificate.rawData),
    key: createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }),
    signing: keys.privateKey,
    curve,
  };
}

/** What a revocation list says, and who signs it instead of its issuer. */
export interface RevocationListOptions {
  readonly revoked?: readonly Pick<Issued, 'der'>[];
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  readonly extensions?: readonly Extension[];
  readonly signer?: Issued;
}

/** Issues a revocation list, DER. */
export async function issueRevocationList(issuer: Issued, options: RevocationListOptions): Promise<Buffer> {
  const { revoked = [], thisUpdate, nextUpdate, extensions = [], signer = issuer } = options;
  const list = await X509CrlGenerator.create({
    issuer: issuer.subject,
    thisUpdate,
    nextUpdate,
    signingAlgorithm: signingAlgorithm(signer),
    signingKey: signer.signing,
    entries: revoked.map(({ der }) => ({
      serialNumber: parseCertificate(der).x509.serialNumber,
      revocationDate: thisUpdate,
    })),
    extensions: [...extensions],
  });
  return Buffer.from(list.rawData);
}

/** An enrolled root of a test's authority. */
export function rootOf(name: string, { der }: Pick<Issued, 'der'>): EnrolledRoot {
  return { name, simulated: false, anchors: [parseCertificate(der)], intermediates: [] };
}

/** The bytes as an ArrayBuffer of their own, as certificate extensions take them. */
export function ownBuffer(buffer: Buffer): ArrayBuffer {
  return buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.length) as ArrayBuffer;
}

/** PEM text of certificates. */
export function pem(certificates: readonly { readonly der: Buffer }[]): string {
  return certificates
    .map(({ der }) => `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`)
    .join('');
}
