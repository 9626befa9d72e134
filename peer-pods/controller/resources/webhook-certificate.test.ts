import { X509Certificate } from 'node:crypto';
import { standardValues } from '@sealpod/deployment';
import { expect, test } from 'vitest';
import { ClusterForTests } from '../cluster-for-tests.ts';
import type { Parts } from '../parts.ts';
import { reconcileWebhookCertificate } from './webhook-certificate.ts';

const log = { info: () => undefined, warn: () => undefined, error: () => undefined };
const deployment = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'sealpod-webhook', namespace: 's' } };
const secret = { apiVersion: 'v1', kind: 'Secret', namespace: 's', name: 'sealpod-webhook-tls' };
const configuration = {
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'MutatingWebhookConfiguration',
  name: 'sealpod',
};

function partsAt(client: ClusterForTests, date: string): Parts {
  const config = {
    namespaces: { system: 's', nodes: 'n' },
    trustNamespaces: [],
    images: standardValues.runtime.images,
    networkPolicies: standardValues.networkPolicies,
    nodes: { nodeSelector: {}, tolerations: [], stateDirectory: '/var/lib/sealpod' },
    resyncSeconds: 20,
    healthPort: 0,
    logLevel: 'info',
  };
  return { client, config, log, now: () => new Date(date) };
}

const text = (value: string): string => Buffer.from(value, 'base64').toString('utf8');

async function stored(cluster: ClusterForTests) {
  const { data } = (await cluster.get(secret)) as unknown as { data: Record<string, string> };
  const { webhooks } = (await cluster.get(configuration)) as unknown as {
    webhooks: { clientConfig: { caBundle?: string } }[];
  };
  return {
    certificate: new X509Certificate(text(data['tls.crt'] ?? '')),
    authorities:
      text(webhooks[0]?.clientConfig.caBundle ?? '').match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? [],
    secret: data,
  };
}

test('a certificate is made, kept while it is good, and renewed so that both are trusted meanwhile', async () => {
  const cluster = new ClusterForTests();
  await reconcileWebhookCertificate(partsAt(cluster, '2026-01-01T00:00:00Z'));
  expect(cluster.objects.size).toBe(0);
  cluster.put(deployment);
  cluster.put({
    ...configuration,
    metadata: { name: 'sealpod' },
    webhooks: [{ name: 'mutate.sealpod.io', clientConfig: {} }],
  });
  await reconcileWebhookCertificate(partsAt(cluster, '2026-01-01T00:00:00Z'));
  const first = await stored(cluster);
  expect(first.certificate.checkHost('sealpod-webhook.s.svc')).toBeDefined();
  expect(first.certificate.verify(new X509Certificate(first.authorities[0] ?? '').publicKey)).toBe(true);
  await reconcileWebhookCertificate(partsAt(cluster, '2026-02-20T00:00:00Z'));
  expect((await stored(cluster)).secret).toEqual(first.secret);
  await reconcileWebhookCertificate(partsAt(cluster, '2026-03-10T00:00:00Z'));
  const second = await stored(cluster);
  expect(second.certificate.fingerprint256).not.toBe(first.certificate.fingerprint256);
  expect(second.authorities).toHaveLength(2);
  const trusted = second.authorities.map((pem) => new X509Certificate(pem).publicKey);
  expect(trusted.map((key) => second.certificate.verify(key))).toEqual([true, false]);
  expect(trusted.map((key) => first.certificate.verify(key))).toEqual([false, true]);
  await reconcileWebhookCertificate(partsAt(cluster, '2026-05-20T00:00:00Z'));
  expect((await stored(cluster)).authorities).toHaveLength(2);
});

test('no key of an authority is kept', async () => {
  const cluster = new ClusterForTests();
  cluster.put(deployment);
  await reconcileWebhookCertificate(partsAt(cluster, '2026-01-01T00:00:00Z'));
  const { data } = (await cluster.get(secret)) as unknown as { data: Record<string, string> };
  expect(Object.keys(data).sort()).toEqual(['ca.crt', 'tls.crt', 'tls.key']);
});
