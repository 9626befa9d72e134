import { webhookConfigurationName, webhookName, webhookSecretName } from '@sealpod/deployment';
import { createServerCertificate, isCertificateFor } from '../certificates.ts';
import { type KubernetesObject, ownedBy } from '../kubernetes/objects.ts';
import type { Outcome } from '../kubernetes/work-queue.ts';
import type { Parts } from '../parts.ts';

const lifetimeDays = 90;
/** A new one is made so many days before the end. */
const renewalDays = 30;
const certificateManager = 'sealpod-controller-certificates';

interface Secret extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
}

interface WebhookConfiguration extends KubernetesObject {
  readonly webhooks?: readonly { readonly name: string; readonly clientConfig?: { readonly caBundle?: string } }[];
}

const decode = (value: string | undefined): string => Buffer.from(value ?? '', 'base64').toString('utf8');
const encode = (value: string): string => Buffer.from(value, 'utf8').toString('base64');

/**
 * Keeps a certificate for the webhook, and tells the API server whom to trust. The authority of a new certificate is
 * trusted before the webhook gets it, and that of the old one until the next: no pod is refused because of a renewal.
 */
export async function reconcileWebhookCertificate(parts: Parts): Promise<Outcome> {
  const { client, config, now, log } = parts;
  const namespace = config.namespaces.system;
  const deployment = await client.get({ apiVersion: 'apps/v1', kind: 'Deployment', namespace, name: webhookName });
  if (deployment === undefined) return {};
  const hosts = [`${webhookName}.${namespace}.svc`];
  const reference = { apiVersion: 'v1', kind: 'Secret', namespace, name: webhookSecretName };
  const { data = {} } = (await client.get<Secret>(reference)) ?? {};
  let bundle = decode(data['ca.crt']);
  if (
    data['tls.key'] === undefined ||
    bundle === '' ||
    !isCertificateFor(decode(data['tls.crt']), hosts, now(), renewalDays)
  ) {
    const made = await createServerCertificate(hosts, { now: now(), days: lifetimeDays });
    bundle = made.authority + firstCertificate(bundle);
    await trust(parts, bundle);
    await client.apply({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: {
        name: webhookSecretName,
        namespace,
        labels: { 'app.kubernetes.io/part-of': 'sealpod' },
        ownerReferences: [ownedBy(deployment)],
      },
      ...{ type: 'kubernetes.io/tls' },
      data: { 'tls.crt': encode(made.certificate), 'tls.key': encode(made.privateKey), 'ca.crt': encode(bundle) },
    });
    log.info({ hosts }, 'a certificate was made for the webhook');
  }
  await trust(parts, bundle);
  return {};
}

/** The newest authority of a bundle. */
function firstCertificate(pem: string): string {
  return /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/.exec(pem)?.[0] ?? '';
}

async function trust({ client }: Parts, bundle: string): Promise<void> {
  const caBundle = encode(bundle);
  for (const kind of ['MutatingWebhookConfiguration', 'ValidatingWebhookConfiguration']) {
    const reference = { apiVersion: 'admissionregistration.k8s.io/v1', kind, name: webhookConfigurationName };
    const configuration = await client.get<WebhookConfiguration>(reference);
    const { webhooks = [] } = configuration ?? {};
    if (webhooks.every((webhook) => webhook.clientConfig?.caBundle === caBundle)) continue;
    const { apiVersion, name } = reference;
    const entries = webhooks.map((webhook) => ({ name: webhook.name, clientConfig: { caBundle } }));
    await client.apply({ apiVersion, kind, metadata: { name }, webhooks: entries }, certificateManager);
  }
}
