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

/** Name of the controller's Deployment, ConfigMap, ServiceAccount and Lease. */
export const controllerName = 'sealpod-controller';
export const controllerHealthPort = 9441;

const { controller, namespaces, runtime } = values;
const metadata = { name: controllerName, namespace: namespaces.system, labels: labels('controller') };

/** What the controller is told: the values that objects of a SealpodRuntime and of a TrustService are made with. */
const configuration: Node = {
  namespaces: { system: namespaces.system, nodes: namespaces.nodes },
  trustNamespaces: controller.trustNamespaces,
  images: {
    node: runtime.images.node,
    services: runtime.images.services,
    pullPolicy: runtime.images.pullPolicy,
    pullSecrets: runtime.images.pullSecrets,
  },
  networkPolicies: {
    enabled: values.networkPolicies.enabled,
    apiServerPorts: values.networkPolicies.apiServerPorts,
    metricsFrom: values.networkPolicies.metricsFrom,
    guestsFrom: values.networkPolicies.guestsFrom,
  },
  nodes: {
    nodeSelector: runtime.nodeAgent.nodeSelector,
    tolerations: runtime.nodeAgent.tolerations,
    stateDirectory: runtime.nodeAgent.stateDirectory,
  },
  resyncSeconds: controller.resyncSeconds,
  healthPort: controllerHealthPort,
  logLevel: controller.logLevel,
};

/** The controller and its configuration. */
export const controllerObjects: readonly Node[] = [
  { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { 'controller.json': jsonText(configuration) } },
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata,
    spec: {
      replicas: controller.replicas,
      selector: { matchLabels: selectorLabels('controller') },
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: {
        metadata: {
          labels: labels('controller'),
          annotations: {
            [configurationAnnotation]: new Digest([
              'controller',
              'namespaces',
              'networkPolicies',
              'runtime.images',
              'runtime.nodeAgent',
            ]),
          },
        },
        spec: {
          serviceAccountName: controllerName,
          imagePullSecrets: when(runtime.images.pullSecrets, [pullSecrets]),
          securityContext: restrictedPod,
          topologySpreadConstraints: spread('controller'),
          containers: [
            {
              name: 'controller',
              image: runtime.images.services,
              imagePullPolicy: runtime.images.pullPolicy,
              command: [serviceProgram, '/app/controller.mjs', '--config', '/etc/sealpod/controller.json'],
              env: [{ name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
              ports: [{ name: 'health', containerPort: controllerHealthPort }],
              livenessProbe: probe('/healthz', 'health'),
              readinessProbe: probe('/readyz', 'health'),
              resources: controller.resources,
              securityContext: restrictedContainer,
              volumeMounts: [{ name: 'configuration', mountPath: '/etc/sealpod', readOnly: true }],
            },
          ],
          volumes: [{ name: 'configuration', configMap: { name: controllerName } }],
        },
      },
    },
  },
  disruptionBudget('controller', controllerName, namespaces.system),
];
