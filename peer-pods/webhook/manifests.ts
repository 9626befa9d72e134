import {
  confidentialExpression,
  confidentialNamespaceMessage,
  confidentialNamespacePolicy,
  imageDigestPolicy,
  webhookConfigurations,
} from '@sealpod/deployment/admission';
import type { WebhookConfig } from './config.ts';

/** Where the API server finds the webhook: a Service in the cluster, or a URL. */
export type WebhookLocation =
  | { readonly service: { readonly name: string; readonly namespace: string; readonly port?: number } }
  | { readonly url: string };

/**
 * What makes the API server ask a webhook that runs by itself, for the RuntimeClasses of its configuration: both webhook
 * configurations, and the policies that need no webhook at all.
 */
export function admissionManifests(
  config: Pick<WebhookConfig, 'runtimeClasses' | 'defaultRuntimeClass'>,
  location: WebhookLocation,
  caPem: string,
): object[] {
  const classes = [...config.runtimeClasses.keys()];
  const isConfidential = confidentialExpression(classes);
  const clientConfig = (path: string) => ({
    caBundle: Buffer.from(caPem).toString('base64'),
    ...('url' in location ? { url: location.url + path } : { service: { ...location.service, path } }),
  });
  return [
    ...webhookConfigurations(isConfidential, clientConfig, (entry) =>
      config.defaultRuntimeClass === undefined ? [] : [entry],
    ),
    ...imageDigestPolicy(isConfidential),
    ...confidentialNamespacePolicy(isConfidential, confidentialNamespaceMessage(classes)),
  ];
}
