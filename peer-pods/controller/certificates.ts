// The certificate library registers its algorithms through it and does not load it itself.
import 'reflect-metadata';
import { createPrivateKey, createPublicKey, webcrypto, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const hourMs = 3_600_000;

/** A certificate and its key, PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly privateKey: string;
}

/** A server's certificate, and the authority that has signed it and nothing else: its key is forgotten. */
export interface ServerCertificate extends KeyPair {
  readonly authority: string;
}

interface Lifetime {
  readonly now: Date;
  readonly days: number;
}

function validity({ now, days }: Lifetime) {
  // Clocks of others may be somewhat behind.
  return { notBefore: new Date(now.getTime() - hourMs), notAfter: new Date(now.getTime() + days * 24 * hourMs) };
}

const serverExtensions = (hosts: readonly string[]): x509.Extension[] => [
  new x509.BasicConstraintsExtension(false, undefined, true),
  new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
  new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
  new x509.SubjectAlternativeNameExtension(
    hosts.map((host) => ({ type: isIP(host) === 0 ? ('dns' as const) : ('ip' as const), value: host })),
  ),
];

/** A certificate for these hosts, below an authority of its own. */
export async function createServerCertificate(
  hosts: readonly string[],
  lifetime: Lifetime,
): Promise<ServerCertificate> {
  const [authorityKeys, keys] = [await generateKeys(), await generateKeys()];
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=sealpod webhook authority',
    keys: authorityKeys,
    signingAlgorithm: algorithm,
    ...validity(lifetime),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(authorityKeys.publicKey),
    ],
  });
  const certificate = await x509.X509CertificateGenerator.create({
    subject: 'CN=sealpod webhook',
    issuer: authority.subject,
    publicKey: keys.publicKey,
    signingKey: authorityKeys.privateKey,
    signingAlgorithm: algorithm,
    ...validity(lifetime),
    extensions: [
      ...serverExtensions(hosts),
      await x509.AuthorityKeyIdentifierExtension.create(authorityKeys.publicKey),
    ],
  });
  return {
    authority: `${authority.toString('pem')}\n`,
    certificate: `${certificate.toString('pem')}\n`,
    privateKey: await pemOf(keys.privateKey),
  };
}

/** A certificate that signs itself, as guests pin it. With `existingKey` (PKCS#8 PEM) the key stays, and so do the pins. */
export async function createPinnedCertificate(
  hosts: readonly string[],
  lifetime: Lifetime,
  existingKey?: string,
): Promise<KeyPair> {
  const keys = existingKey === undefined ? await generateKeys() : await importKeys(existingKey);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=sealpod key broker',
    keys,
    signingAlgorithm: algorithm,
    ...validity(lifetime),
    extensions: serverExtensions(hosts),
  });
  return { certificate: `${certificate.toString('pem')}\n`, privateKey: await pemOf(keys.privateKey) };
}

/** Whether a certificate names each host, and goes on for at least so many days. False for what is no certificate. */
export function isCertificateFor(pem: string, hosts: readonly string[], now: Date, days: number): boolean {
  try {
    const certificate = new X509Certificate(pem);
    const names = hosts.every(
      (host) => (isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)) !== undefined,
    );
    return names && certificate.validToDate.getTime() > now.getTime() + days * 24 * hourMs;
  } catch {
    // Somebody has written something else into the Secret: it is made anew.
    return false;
  }
}

function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;
}

async function importKeys(pem: string): Promise<webcrypto.CryptoKeyPair> {
  const publicKey = createPublicKey(pem).export({ type: 'spki', format: 'der' });
  const privateKey = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' });
  return {
    publicKey: await webcrypto.subtle.importKey('spki', publicKey, algorithm, true, ['verify']),
    privateKey: await webcrypto.subtle.importKey('pkcs8', privateKey, algorithm, true, ['sign']),
  };
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}
