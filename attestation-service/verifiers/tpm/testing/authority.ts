import 'reflect-metadata';
import { createPublicKey, type KeyObject, webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';

export { KeyUsageFlags };

const signing = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const year = 365 * 86_400_000;

/** What a test may make wrong about a certificate. */
export interface CertificateFaults {
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  readonly authority?: boolean;
  readonly pathLength?: number;
  readonly usage?: KeyUsageFlags;
  readonly extendedUsage?: string;
  readonly criticalExtension?: string;
}

/** A certificate authority of a TPM maker, for tests: a root, an intermediate, and endorsement key certificates. */
export class TestAuthority {
  readonly #keys: CryptoKeyPair;
  readonly #issuer: string;
  /** PEM of this authority's own certificate and of those above it. */
  readonly certificates: string;

  private constructor(keys: CryptoKeyPair, issuer: string, certificates: string) {
    this.#keys = keys;
    this.#issuer = issuer;
    this.certificates = certificates;
  }

  /** A self-signed root. */
  static async root(name = 'CN=Test Root', faults: CertificateFaults = {}): Promise<TestAuthority> {
    const keys = await webcrypto.subtle.generateKey(signing, true, ['sign', 'verify']);
    const pem = await certify(keys, name, name, keys.publicKey, {
      authority: true,
      usage: KeyUsageFlags.keyCertSign,
      ...faults,
    });
    return new TestAuthority(keys, name, pem.toString('pem'));
  }

  /** An authority below this one. */
  async intermediate(name = 'CN=Test Intermediate', faults: CertificateFaults = {}): Promise<TestAuthority> {
    const keys = await webcrypto.subtle.generateKey(signing, true, ['sign', 'verify']);
    const certificate = await certify(this.#keys, this.#issuer, name, keys.publicKey, {
      authority: true,
      usage: KeyUsageFlags.keyCertSign,
      ...faults,
    });
    return new TestAuthority(keys, name, `${certificate.toString('pem')}\n${this.certificates}`);
  }

  /** The certificate of an endorsement key, DER. */
  async endorse(endorsementKey: KeyObject, faults: CertificateFaults = {}): Promise<Buffer> {
    const spki = createPublicKey(endorsementKey).export({ format: 'der', type: 'spki' });
    const rsa = endorsementKey.asymmetricKeyType === 'rsa';
    const namedCurve = endorsementKey.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'P-384' : 'P-256';
    const algorithm = rsa ? { name: 'RSA-OAEP', hash: 'SHA-256' } : { name: 'ECDH', namedCurve };
    const publicKey = await webcrypto.subtle.importKey('spki', spki, algorithm, true, rsa ? ['encrypt'] : []);
    const certificate = await certify(this.#keys, this.#issuer, 'CN=tpm', publicKey, {
      authority: false,
      usage: rsa ? KeyUsageFlags.keyEncipherment : KeyUsageFlags.keyAgreement,
      extendedUsage: '2.23.133.8.1',
      ...faults,
    });
    return Buffer.from(certificate.rawData);
  }
}

function certify(
  signer: CryptoKeyPair,
  issuer: string,
  subject: string,
  publicKey: CryptoKey,
  faults: CertificateFaults,
) {
  const extensions: Extension[] = [new BasicConstraintsExtension(faults.authority ?? false, faults.pathLength, true)];
  if (faults.usage !== undefined) extensions.push(new KeyUsagesExtension(faults.usage, true));
  if (faults.extendedUsage !== undefined) extensions.push(new ExtendedKeyUsageExtension([faults.extendedUsage]));
  if (faults.criticalExtension !== undefined)
    extensions.push(new Extension(faults.criticalExtension, true, new Uint8Array([5, 0])));
  return X509CertificateGenerator.create({
    issuer,
    subject,
    publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: signing,
    notBefore: faults.notBefore ?? new Date(Date.now() - year),
    notAfter: faults.notAfter ?? new Date(Date.now() + year),
    extensions,
  });
}

type CryptoKeyPair = webcrypto.CryptoKeyPair;
type CryptoKey = webcrypto.CryptoKey;
