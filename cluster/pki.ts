import { generateKeyPairSync, webcrypto } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';

/** The Service by whose name the API server calls the metrics server. */
export const metricsService = { name: 'metrics-server', namespace: 'kube-system' } as const;

x509.cryptoProvider.set(webcrypto as typeof crypto);
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const yearMs = 365 * 24 * 3600 * 1000;

/** Who a certificate is for. `organization` is the Kubernetes group, `commonName` the user. */
interface Subject {
  readonly file: string;
  readonly commonName: string;
  readonly organization?: string;
  readonly names?: readonly string[];
}

/** The certificates and keys of one cluster, as files in `directory` (`<name>.crt`, `<name>.key`, 0600). */
export interface ClusterPki {
  readonly directory: string;
  /** Path of `name`.crt or `name`.key. */
  file(name: string): string;
}

/** The certificates that are in `directory`. */
export function openClusterPki(directory: string): ClusterPki {
  return { directory, file: (name: string) => join(directory, name) };
}

/**
 * Makes the cluster's certificate authority, all client and server certificates and the service account key. What is
 * there already is kept where it was made for the same addresses and subjects.
 */
export async function createClusterPki(
  directory: string,
  node: string,
  nodeAddress: string,
  serviceAddress: string,
): Promise<ClusterPki> {
  const pki = openClusterPki(directory);
  const marker = pki.file('addresses');
  const wanted = subjects(node, nodeAddress, serviceAddress);
  const addresses = `${node} ${nodeAddress} ${serviceAddress} ${wanted.map(({ file }) => file).join(',')}\n`;
  if (existsSync(marker) && readFileSync(marker, 'utf8') === addresses) return pki;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const write = (name: string, text: string): void => writeFileSync(pki.file(name), text, { mode: 0o600 });

  const authorityKeys = (await webcrypto.subtle.generateKey(algorithm, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair;
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=sealpod development cluster',
    notBefore: new Date(Date.now() - 300_000),
    notAfter: new Date(Date.now() + yearMs),
    signingAlgorithm: algorithm,
    keys: authorityKeys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(authorityKeys.publicKey),
    ],
  });
  write('ca.crt', authority.toString('pem'));
  write('ca.key', await pemKey(authorityKeys.privateKey));

  for (const subject of wanted) {
    const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
    const group = subject.organization === undefined ? '' : `O=${subject.organization},`;
    const certificate = await x509.X509CertificateGenerator.create({
      subject: `${group}CN=${subject.commonName}`,
      issuer: authority.subject,
      notBefore: new Date(Date.now() - 300_000),
      notAfter: new Date(Date.now() + yearMs),
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey: authorityKeys.privateKey,
      extensions: [
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        ...(subject.names === undefined
          ? []
          : [new x509.SubjectAlternativeNameExtension(subject.names.map(alternativeName))]),
        await x509.AuthorityKeyIdentifierExtension.create(authorityKeys.publicKey),
      ],
    });
    write(`${subject.file}.crt`, certificate.toString('pem'));
    write(`${subject.file}.key`, await pemKey(keys.privateKey));
  }
  const serviceAccounts = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  write('service-accounts.key', serviceAccounts.privateKey.export({ format: 'pem', type: 'sec1' }) as string);
  write('service-accounts.pub', serviceAccounts.publicKey.export({ format: 'pem', type: 'spki' }) as string);
  write('addresses', addresses);
  return pki;
}

function subjects(node: string, nodeAddress: string, serviceAddress: string): readonly Subject[] {
  const service = [
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    'kubernetes.default.svc.cluster.local',
  ];
  return [
    {
      file: 'apiserver',
      commonName: 'kube-apiserver',
      names: ['localhost', ...service, '127.0.0.1', serviceAddress, nodeAddress],
    },
    {
      file: 'kubelet',
      commonName: `system:node:${node}`,
      organization: 'system:nodes',
      names: [node, '127.0.0.1', nodeAddress],
    },
    { file: 'admin', commonName: 'admin', organization: 'system:masters' },
    { file: 'controller-manager', commonName: 'system:kube-controller-manager' },
    { file: 'scheduler', commonName: 'system:kube-scheduler' },
    { file: 'proxy', commonName: 'system:kube-proxy' },
    {
      file: 'metrics-server',
      commonName: 'metrics-server',
      names: [`${metricsService.name}.${metricsService.namespace}.svc`, nodeAddress],
    },
    // Speaks for users to APIs that another program serves.
    { file: 'front-proxy', commonName: 'front-proxy-client' },
    { file: 'apiserver-kubelet', commonName: 'apiserver-kubelet', organization: 'system:masters' },
  ];
}

function alternativeName(name: string): x509.JsonGeneralName {
  return { type: /^[\d.]+$/.test(name) ? 'ip' : 'dns', value: name };
}

async function pemKey(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

/** Writes `<name>.conf`, a kubeconfig for the certificate of that name; returns its path. */
export function writeKubeconfig(pki: ClusterPki, name: string, server: string): string {
  const data = (file: string): string => readFileSync(pki.file(file)).toString('base64');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'sealpod', cluster: { server, 'certificate-authority-data': data('ca.crt') } }],
    users: [{ name, user: { 'client-certificate-data': data(`${name}.crt`), 'client-key-data': data(`${name}.key`) } }],
    contexts: [{ name: 'sealpod', context: { cluster: 'sealpod', user: name } }],
    'current-context': 'sealpod',
  };
  const path = pki.file(`${name}.conf`);
  writeFileSync(path, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
  return path;
}
