import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { standardValues } from '@sealpod/deployment';
import { createKbs, type Kbs, loadKbsConfig } from '@sealpod/kbs';
import { KbsClient } from '@sealpod/kbs-client';
import { signAdminToken } from '@sealpod/kbs-client/token';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ClusterForTests } from '../../peer-pods/controller/cluster-for-tests.ts';
import type { Condition } from '../../peer-pods/controller/kubernetes/conditions.ts';
import type { Parts } from '../../peer-pods/controller/parts.ts';
import { reconcileReferenceValues } from '../../peer-pods/controller/resources/reference-values.ts';
import { reconcileTrustService } from '../../peer-pods/controller/resources/trust-service.ts';

/* A real key broker with the configuration, key and certificate that the controller made for it; values registered with it. */

const apiVersion = 'sealpod.io/v1alpha1';
const namespace = 'trust';
const owner = generateKeyPairSync('ed25519');
const log = { info: () => undefined, warn: () => undefined, error: () => undefined };
const cluster = new ClusterForTests();
let folder = '';
let kbs: Kbs | undefined;
let kbsClient: KbsClient;

const parts: Parts = {
  client: cluster,
  config: {
    namespaces: { system: 'sealpod-system', nodes: 'sealpod-nodes' },
    trustNamespaces: [namespace],
    images: standardValues.runtime.images,
    networkPolicies: standardValues.networkPolicies,
    nodes: { nodeSelector: {}, tolerations: [], stateDirectory: '/var/lib/sealpod' },
    resyncSeconds: 20,
    healthPort: 0,
    logLevel: 'info',
  },
  log,
  now: () => new Date(),
  keyBrokerUrl: () => kbs?.address,
};

const service = { apiVersion, kind: 'TrustService', namespace, name: 'main' };
const spec = {
  image: '',
  hosts: ['127.0.0.1'],
  port: 8080,
  serviceType: 'ClusterIP',
  administrators: [
    { name: 'owner', publicKey: owner.publicKey.export({ type: 'spki', format: 'pem' }).toString(), role: 'owner' },
  ],
  referenceValues: true,
  tpmRoots: [],
  storage: { size: '1Gi', className: '', onDelete: 'Retain' },
  logLevel: 'error',
};

const get = async <T>(reference: { apiVersion: string; kind: string; name: string }) =>
  (await cluster.get({ ...reference, namespace })) as unknown as T;
const text = (value: string | undefined): string => Buffer.from(value ?? '', 'base64').toString('utf8');

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-trust-'));
  cluster.put({ ...service, metadata: { name: 'main', namespace }, spec });
  await reconcileTrustService(parts, namespace, 'main');
  const { data } = await get<{ data: Record<string, string> }>({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    name: 'main-key-broker',
  });
  const tls = await get<{ data: Record<string, string> }>({
    apiVersion: 'v1',
    kind: 'Secret',
    name: 'main-key-broker-tls',
  });
  mkdirSync(join(folder, 'tls'));
  for (const [name, content] of Object.entries(data)) writeFileSync(join(folder, name), content);
  for (const [name, content] of Object.entries(tls.data)) writeFileSync(join(folder, 'tls', name), text(content));
  const config = {
    ...(JSON.parse(data['kbs.json'] ?? '') as object),
    listen: { host: '127.0.0.1', port: 0 },
    dataDirectory: join(folder, 'data'),
    tls: { certificate: join(folder, 'tls/tls.crt'), privateKey: join(folder, 'tls/tls.key') },
  };
  writeFileSync(join(folder, 'kbs.json'), JSON.stringify(config));
  kbs = await createKbs(loadKbsConfig(join(folder, 'kbs.json')));
  const status = (await get<{ status: { certificate: string } }>(service)).status;
  kbsClient = new KbsClient({
    url: kbs.address,
    certificatePem: status.certificate,
    token: () => signAdminToken({ privateKey: owner.privateKey, role: 'owner', subject: 'owner', ttlSeconds: 60 }),
  });
});
afterAll(async () => {
  await kbs?.close(200);
  rmSync(folder, { recursive: true, force: true });
});

interface Resource {
  readonly metadata: { readonly finalizers?: readonly string[]; readonly generation: number };
  readonly status: {
    readonly conditions: readonly Condition[];
    readonly values: readonly { readonly id: string; readonly version: number }[];
  };
}

const reference = (name: string) => ({ apiVersion, kind: 'ReferenceValues', name });

async function told(name: string): Promise<string> {
  const { status } = await get<Resource>(reference(name));
  const held = status.conditions.find((condition) => condition.status === 'True');
  return `${held?.type} ${held?.reason}: ${held?.message}`;
}

async function specify(name: string, values: readonly object[], more: object = {}): Promise<void> {
  const before = await get<Resource | undefined>(reference(name));
  const generation = (before?.metadata.generation ?? 0) + 1;
  const metadata = { ...before?.metadata, name, namespace, generation };
  const ofValues = { trustService: { name: 'main' }, podVmImages: [], values, expiresAt: '', ...more };
  cluster.put({ ...before, ...reference(name), metadata, spec: ofValues });
  await reconcileReferenceValues(parts, namespace, name);
}

const reconcile = (name: string) => reconcileReferenceValues(parts, namespace, name);

it('the status of a TrustService names address and certificate; the key stays in its Secret', async () => {
  const { status } = await get<{ status: { url: string; certificate: string; administratorKey: string } }>(service);
  expect(status.url).toBe('https://127.0.0.1:8080');
  const certificate = new X509Certificate(status.certificate);
  for (const host of ['main-key-broker.trust.svc', 'main-key-broker.trust'])
    expect(certificate.checkHost(host)).toBe(host);
  expect(status.administratorKey).toContain('BEGIN PUBLIC KEY');
  const shown = [...cluster.objects.values()].filter(({ kind }) => kind !== 'Secret');
  expect(JSON.stringify(shown)).not.toContain('PRIVATE KEY');
});

it('values of a PodVmImage and further ones are registered, replaced and taken away', async () => {
  cluster.put({
    apiVersion,
    kind: 'PodVmImage',
    metadata: { name: 'image' },
    spec: { digest: '', source: '', referenceValues: [{ id: 'tpm_kernel', values: ['aa'] }] },
  });
  await specify(
    'values',
    [
      { id: 'tpm_kernel', values: ['bb'] },
      { id: 'tpm_initrd', values: ['cc'] },
    ],
    {
      podVmImages: ['image'],
    },
  );
  expect(await told('values')).toBe('Ready Ready: 2 values are registered');
  expect(await kbsClient.get('/admin/v1/reference-values/tpm_kernel')).toMatchObject({ value: ['aa', 'bb'] });
  await specify('values', [{ id: 'tpm_kernel', values: ['dd'] }]);
  expect(await kbsClient.get('/admin/v1/reference-values/tpm_kernel')).toMatchObject({ value: ['dd'] });
  await expect(kbsClient.get('/admin/v1/reference-values/tpm_initrd')).rejects.toThrow('404');
});

it('what the owner of the key broker has changed is told, and not undone until it is specified anew', async () => {
  await kbsClient.put('/admin/v1/reference-values/tpm_kernel', { value: ['ee'] });
  await reconcile('values');
  expect(await told('values')).toMatch(
    /^Degraded Mismatch: tpm_kernel is \["ee"\] in version \d+, registered was version \d+; put it right/,
  );
  await reconcile('values');
  expect(await kbsClient.get('/admin/v1/reference-values/tpm_kernel')).toMatchObject({ value: ['ee'] });
  await specify('values', [{ id: 'tpm_kernel', values: ['ff'] }]);
  expect(await told('values')).toBe('Ready Ready: 1 values are registered');
  expect(await kbsClient.get('/admin/v1/reference-values/tpm_kernel')).toMatchObject({ value: ['ff'] });
});

it('of two that name one value the older one has it', async () => {
  await specify('other', [{ id: 'tpm_kernel', values: ['00'] }]);
  expect(await told('other')).toBe(
    'Degraded Conflict: tpm_kernel is registered by ReferenceValues values; name it in one of both',
  );
  expect(await kbsClient.get('/admin/v1/reference-values/tpm_kernel')).toMatchObject({ value: ['ff'] });
});

it('says which image is missing, and that values have to be allowed', async () => {
  await specify('other', [], { podVmImages: ['absent'] });
  expect(await told('other')).toContain('Degraded PodVmImageMissing: there is no PodVmImage absent');
  await specify('other', [{ id: 'x', values: ['1'] }], { trustService: { name: 'nobody' } });
  expect(await told('other')).toContain(
    'Degraded TrustServiceMissing: there is no TrustService nobody in namespace trust',
  );
  cluster.put({
    ...service,
    name: undefined,
    metadata: { name: 'closed', namespace },
    spec: { ...spec, referenceValues: false },
  });
  await specify('other', [{ id: 'x', values: ['1'] }], { trustService: { name: 'closed' } });
  expect(await told('other')).toContain(
    'Degraded NotPermitted: TrustService closed does not let the controller register values',
  );
});

it('values go when they are deleted, but not one that somebody has changed since', async () => {
  await specify('values', [
    { id: 'tpm_kernel', values: ['11'] },
    { id: 'tpm_initrd', values: ['22'] },
  ]);
  await kbsClient.put('/admin/v1/reference-values/tpm_initrd', { value: ['33'] });
  cluster.markDeleted({ ...reference('values'), namespace });
  await reconcile('values');
  expect(await get(reference('values'))).toBeUndefined();
  await expect(kbsClient.get('/admin/v1/reference-values/tpm_kernel')).rejects.toThrow('404');
  expect(await kbsClient.get('/admin/v1/reference-values/tpm_initrd')).toMatchObject({ value: ['33'] });
});

it('more hosts give another certificate of the same key, so that pins go on to hold', async () => {
  const key = async () => {
    const { status } = await get<{ status: { certificate: string } }>(service);
    return new X509Certificate(status.certificate).publicKey.export({ type: 'spki', format: 'pem' });
  };
  const before = await key();
  const present = await get<{ metadata: object }>(service);
  cluster.put({ ...present, spec: { ...spec, hosts: ['127.0.0.1', 'kbs.example'] } });
  await reconcileTrustService(parts, namespace, 'main');
  const { status } = await get<{ status: { certificate: string } }>(service);
  expect(new X509Certificate(status.certificate).checkHost('kbs.example')).toBe('kbs.example');
  expect(await key()).toEqual(before);
});
