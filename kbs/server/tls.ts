// The certificate library registers its algorithms through it and does not load it itself.
import 'reflect-metadata';
import { createPrivateKey, createPublicKey, webcrypto, X509Certificate } from 'node:crypto';
import { chmodSync, linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { SealpodError } from '@sealpod/protocol/errors';
import type { KbsConfig } from '../config.ts';

/** What the server shows and holds, as PEM, and where the certificate can be read. */
export interface TlsMaterial {
  readonly certificate: string;
  readonly privateKey: string;
  readonly certificatePath: string;
}

const day = 24 * 60 * 60 * 1000;
/** Guests pin the key, so that the certificate's end would only be an outage. */
const lifetime = 10 * 365 * day;

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/**
 * A self-signed certificate and its key in one PEM text: EC P-256, for exactly these hosts. With `existingKey` (PKCS#8
 * PEM) that key is certified, which guests that pin it go on trusting.
 */
export async function createSelfSigned(hosts: readonly string[], now: number, existingKey?: string): Promise<string> {
  const keys = existingKey === undefined ? await generateKeys() : await importKeys(existingKey);
  const names = hosts.map((host) => ({ type: isIP(host) === 0 ? ('dns' as const) : ('ip' as const), value: host }));
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=sealpod key broker',
    keys,
    signingAlgorithm: algorithm,
    // Guests whose clock is somewhat behind must be able to connect at once.
    notBefore: new Date(now - day),
    notAfter: new Date(now + lifetime),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(names),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const key = PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
  return `${certificate.toString('pem')}\n${key}\n`;
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

/** Whether a certificate names each of these hosts. */
function covers(certificate: X509Certificate, hosts: readonly string[]): boolean {
  return hosts.every(
    (host) => (isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)) !== undefined,
  );
}

function blocksOf(pem: string, label: string): string {
  const pattern = new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----`, 'g');
  return (pem.match(pattern) ?? []).map((block) => `${block}\n`).join('');
}

function replaceFile(path: string, text: string, mode: number): void {
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, text, { mode });
  renameSync(temporary, path);
}

/**
 * Makes key and certificate once, and the certificate anew where the hosts have changed; of two processes that start at
 * once on one directory both use the same key.
 */
async function ensureSelfSigned(directory: string, hosts: readonly string[], now: number): Promise<TlsMaterial> {
  const tlsDirectory = join(directory, 'tls');
  mkdirSync(tlsDirectory, { recursive: true, mode: 0o700 });
  const combined = join(tlsDirectory, 'server.pem');
  let pem = readIfPresent(combined);
  if (pem === undefined) {
    const temporary = `${combined}.${process.pid}`;
    writeFileSync(temporary, await createSelfSigned(hosts, now), { mode: 0o600 });
    try {
      // Unlike a rename, a link does not replace what another process has put there meanwhile.
      linkSync(temporary, combined);
    } catch (thrown) {
      if (!(thrown instanceof Error && 'code' in thrown && thrown.code === 'EEXIST')) throw thrown;
    } finally {
      rmSync(temporary);
    }
    pem = readFileSync(combined, 'utf8');
  }
  if (!covers(new X509Certificate(blocksOf(pem, 'CERTIFICATE')), hosts)) {
    // The machine has other addresses than at the first start.
    pem = await createSelfSigned(hosts, now, blocksOf(pem, 'PRIVATE KEY'));
    replaceFile(combined, pem, 0o600);
  }
  chmodSync(combined, 0o600);
  const certificatePath = join(tlsDirectory, 'certificate.pem');
  const certificate = blocksOf(pem, 'CERTIFICATE');
  replaceFile(certificatePath, certificate, 0o644);
  return { certificate, privateKey: blocksOf(pem, 'PRIVATE KEY'), certificatePath };
}

function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT') return undefined;
    throw thrown;
  }
}

/** Reads (or, at the first start, makes) what the server needs for TLS. Throws `USAGE` for files that are no key pair. */
export async function loadTls(config: KbsConfig, now: number): Promise<TlsMaterial> {
  const { tls } = config;
  if (tls === undefined) return ensureSelfSigned(config.dataDirectory, config.tlsHosts, now);
  try {
    const certificate = readFileSync(tls.certificate, 'utf8');
    const privateKey = readFileSync(tls.privateKey, 'utf8');
    if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey))) {
      throw new Error('the certificate is not of this private key');
    }
    return { certificate, privateKey, certificatePath: tls.certificate };
  } catch (cause) {
    throw new SealpodError('USAGE', 'the TLS certificate or its key cannot be used', {
      source: `${tls.certificate}, ${tls.privateKey}`,
      cause,
    });
  }
}
