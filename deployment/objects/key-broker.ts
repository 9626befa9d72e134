import { createHash } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import type { TrustServiceSpec } from '../resources/settings.ts';
import type { ChartValues } from '../values/chart.ts';
import { labels, probe, restrictedContainer, restrictedPod, selectorLabels, serviceProgram } from './common.ts';
import { configurationAnnotation } from './node-agent.ts';

/** Label of everything that belongs to a TrustService. */
const trustServiceLabel = 'sealpod.io/trust-service';
const containerPort = 8080;

/** What of the installation a key broker is made with. */
export type KeyBrokerDefaults = Pick<ChartValues, 'networkPolicies'> & {
  readonly images: ChartValues['runtime']['images'];
};

/** A TrustService, and what the controller has made for it. */
export interface KeyBrokerOptions {
  readonly name: string;
  readonly namespace: string;
  readonly spec: TrustServiceSpec;
  /** PEM; the pair is in the Secret `keyBrokerNames().certificate`. */
  readonly certificate: string;
  /** PEM of the key that the controller signs administrator tokens with, where it may. */
  readonly controllerKey?: string;
}

/** Names of the objects of a TrustService. */
export function keyBrokerNames(name: string) {
  return {
    broker: `${name}-key-broker`,
    certificate: `${name}-key-broker-tls`,
    administrator: `${name}-controller-key`,
  };
}

/** Every name by which the key broker's certificate has to be accepted. */
export function keyBrokerHosts({
  name,
  namespace,
  spec,
}: Pick<KeyBrokerOptions, 'name' | 'namespace' | 'spec'>): string[] {
  const { broker } = keyBrokerNames(name);
  const service = `${broker}.${namespace}`;
  return [`${service}.svc`, `${service}.svc.cluster.local`, service, ...spec.hosts];
}

/** Its address: for guests the first of the hosts that were named, and the Service where none was. */
export function keyBrokerUrl(
  options: Pick<KeyBrokerOptions, 'name' | 'namespace' | 'spec'>,
  forGuests: boolean,
): string {
  const [service = ''] = keyBrokerHosts(options);
  const host = forGuests ? (options.spec.hosts[0] ?? service) : service;
  return `https://${host.includes(':') ? `[${host}]` : host}:${options.spec.port}`;
}

function configuration({ spec, controllerKey }: KeyBrokerOptions): JsonObject {
  const keys = spec.administrators.map(({ name, role }) => ({
    publicKeyFile: `administrator-${name}.pem`,
    maxRole: role,
  }));
  const ofController = controllerKey === undefined ? [] : [{ publicKeyFile: 'controller.pem', maxRole: 'operator' }];
  return {
    listen: { host: '0.0.0.0', port: containerPort },
    dataDirectory: '/var/lib/kbs/data',
    tls: { certificate: '/run/tls/tls.crt', privateKey: '/run/tls/tls.key' },
    admin: { keys: [...keys, ...ofController] },
    attestationService: {
      type: 'builtin',
      ...(spec.tpmRoots.length === 0
        ? {}
        : { tpm: { requireTrustedKey: true, roots: spec.tpmRoots.map((root) => ({ ...root })) } }),
    },
    logLevel: spec.logLevel,
  };
}

/** The objects of a key broker: one instance, since its storage is one file. */
export function keyBrokerManifests(options: KeyBrokerOptions, defaults: KeyBrokerDefaults): JsonObject[] {
  const { name, namespace, spec, certificate, controllerKey } = options;
  const { broker } = keyBrokerNames(name);
  const { images } = defaults;
  const selector = { ...selectorLabels('key-broker'), [trustServiceLabel]: name };
  const metadata = { name: broker, namespace, labels: { ...labels('key-broker'), [trustServiceLabel]: name } };
  const data: Record<string, string> = {
    'kbs.json': `${JSON.stringify(configuration(options), null, 2)}\n`,
    ...Object.fromEntries(spec.administrators.map((admin) => [`administrator-${admin.name}.pem`, admin.publicKey])),
    ...(controllerKey === undefined ? {} : { 'controller.pem': controllerKey }),
  };
  const digest = createHash('sha256')
    .update(JSON.stringify([data, certificate]))
    .digest('hex');
  return [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata, data },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata,
      spec: {
        accessModes: ['ReadWriteOnce'],
        resources: { requests: { storage: spec.storage.size } },
        ...(spec.storage.className === '' ? {} : { storageClassName: spec.storage.className }),
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: {
        type: spec.serviceType,
        selector,
        ports: [{ name: 'https', port: spec.port, targetPort: 'https', protocol: 'TCP' }],
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata,
      spec: {
        replicas: 1,
        serviceName: broker,
        selector: { matchLabels: selector },
        template: {
          metadata: { labels: metadata.labels, annotations: { [configurationAnnotation]: digest } },
          spec: {
            automountServiceAccountToken: false,
            enableServiceLinks: false,
            ...(images.pullSecrets.length === 0
              ? {}
              : { imagePullSecrets: images.pullSecrets.map((secret) => ({ name: secret })) }),
            securityContext: restrictedPod,
            terminationGracePeriodSeconds: 30,
            containers: [
              {
                name: 'key-broker',
                image: spec.image === '' ? images.services : spec.image,
                imagePullPolicy: images.pullPolicy,
                command: [serviceProgram, '/app/kbs.mjs', '--config', '/etc/sealpod/kbs.json'],
                ports: [{ name: 'https', containerPort }],
                startupProbe: { ...probe('/healthz', 'https', 'HTTPS'), periodSeconds: 3, failureThreshold: 40 },
                livenessProbe: probe('/healthz', 'https', 'HTTPS'),
                readinessProbe: probe('/healthz', 'https', 'HTTPS'),
                resources: { requests: { cpu: '50m', memory: '192Mi' }, limits: { memory: '1Gi' } },
                securityContext: restrictedContainer as unknown as JsonObject,
                volumeMounts: [
                  { name: 'configuration', mountPath: '/etc/sealpod', readOnly: true },
                  { name: 'tls', mountPath: '/run/tls', readOnly: true },
                  { name: 'data', mountPath: '/var/lib/kbs' },
                  { name: 'temporary', mountPath: '/tmp' },
                ],
              },
            ],
            volumes: [
              { name: 'configuration', configMap: { name: broker } },
              { name: 'tls', secret: { secretName: keyBrokerNames(name).certificate, defaultMode: 0o440 } },
              { name: 'data', persistentVolumeClaim: { claimName: broker } },
              { name: 'temporary', emptyDir: {} },
            ],
          },
        },
      },
    },
    ...(defaults.networkPolicies.enabled
      ? [
          {
            apiVersion: 'networking.k8s.io/v1',
            kind: 'NetworkPolicy',
            metadata,
            spec: {
              podSelector: { matchLabels: selector },
              policyTypes: ['Ingress', 'Egress'],
              ingress: [
                {
                  // Guests are pods of any namespace; a key broker asks them for evidence, not for where they are.
                  from: [
                    { namespaceSelector: {} },
                    ...defaults.networkPolicies.guestsFrom.map((cidr) => ({ ipBlock: { cidr } })),
                  ],
                  ports: [{ protocol: 'TCP', port: containerPort }],
                },
              ],
            },
          },
        ]
      : []),
  ];
}
