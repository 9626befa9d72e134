import { Digest, jsonText, type Node, when } from '../template/nodes.ts';
import {
  disruptionBudget,
  labels,
  probe,
  pullSecrets,
  restrictedContainer,
  restrictedPod,
  selectorLabels,
  serviceProgram,
  spread,
  values,
} from './common.ts';
import { configurationAnnotation } from './node-agent.ts';
import { peerRuntimeClassName, runtimeClassName } from './runtime-class.ts';

/** Name of the webhook's Deployment, Service, ConfigMap and ServiceAccount. */
export const webhookName = 'sealpod-webhook';
/** Secret with the webhook's certificate and key, and in `ca.crt` what the API server trusts. */
export const webhookSecretName = 'sealpod-webhook-tls';
export const webhookPort = 8443;

const { runtime, namespaces } = values;
const { webhook, machines, images } = runtime;
const metadata = { name: webhookName, namespace: namespaces.system, labels: labels('webhook') };

const admission = {
  handler: runtimeClassName,
  extendedResource: machines.resourceName,
  guestMemoryMiB: webhook.guestMemoryMiB,
  limits: { vcpus: machines.maxVcpus, memoryMiB: machines.maxMemoryMiB },
  requireInitdata: webhook.requireInitdata,
  requireDigests: webhook.requireDigests,
};

const configuration: Node = {
  port: webhookPort,
  certificateFile: '/run/tls/tls.crt',
  keyFile: '/run/tls/tls.key',
  logLevel: webhook.logLevel,
  defaultRuntimeClass: when(webhook.defaultRuntimeClass, webhook.defaultRuntimeClass),
  runtimeClasses: {
    [peerRuntimeClassName]: when(runtime.peer.provider, {
      ...admission,
      includeOverhead: false,
      // What the machine takes is not the node's.
      removeResources: true,
    }),
    [runtimeClassName]: admission,
  },
};

/** The webhook with everything it needs but its certificate, which the controller makes. */
export const webhookObjects: readonly Node[] = [
  {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata,
    data: { 'webhook.json': jsonText(configuration) },
  },
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: {
      selector: selectorLabels('webhook'),
      ports: [{ name: 'https', port: 443, targetPort: 'https', protocol: 'TCP' }],
    },
  },
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata,
    spec: {
      replicas: webhook.replicas,
      selector: { matchLabels: selectorLabels('webhook') },
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: {
        metadata: {
          labels: labels('webhook'),
          annotations: {
            [configurationAnnotation]: new Digest(['runtime.webhook', 'runtime.machines', 'runtime.peer']),
          },
        },
        spec: {
          serviceAccountName: webhookName,
          automountServiceAccountToken: false,
          imagePullSecrets: when(images.pullSecrets, [pullSecrets]),
          securityContext: restrictedPod,
          topologySpreadConstraints: spread('webhook'),
          containers: [
            {
              name: 'webhook',
              image: images.services,
              imagePullPolicy: images.pullPolicy,
              command: [serviceProgram, '/app/webhook.mjs', '--config', '/etc/sealpod/webhook.json'],
              ports: [{ name: 'https', containerPort: webhookPort }],
              livenessProbe: probe('/healthz', 'https', 'HTTPS'),
              readinessProbe: probe('/healthz', 'https', 'HTTPS'),
              resources: webhook.resources,
              securityContext: restrictedContainer,
              volumeMounts: [
                { name: 'configuration', mountPath: '/etc/sealpod', readOnly: true },
                { name: 'tls', mountPath: '/run/tls', readOnly: true },
              ],
            },
          ],
          volumes: [
            { name: 'configuration', configMap: { name: webhookName } },
            { name: 'tls', secret: { secretName: webhookSecretName, defaultMode: 0o440 } },
          ],
        },
      },
    },
  },
  disruptionBudget('webhook', webhookName, namespaces.system),
];
