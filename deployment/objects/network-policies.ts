import { each, type Node, when } from '../template/nodes.ts';
import { labels, selectorLabels, values } from './common.ts';
import { controllerHealthPort } from './controller.ts';
import { webhookPort } from './webhook.ts';

const { namespaces, networkPolicies, runtime, controller, uninstallHook } = values;

/** Name resolution in the cluster. */
export const dnsEgress = {
  to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } } }],
  ports: [
    { protocol: 'UDP', port: 53 },
    { protocol: 'TCP', port: 53 },
  ],
};

/** The API server has no pod that a policy could name: its ports, wherever they are. */
const apiServerEgress: Node = {
  ports: [each(networkPolicies.apiServerPorts, 'port', (port) => ({ protocol: 'TCP', port }))],
};

/** Labels that are none would mean every namespace, and mean nobody here. */
const metricsIngress = (port: Node): Node =>
  when(networkPolicies.metricsFrom, [
    {
      from: [{ namespaceSelector: { matchLabels: networkPolicies.metricsFrom } }],
      ports: [{ protocol: 'TCP', port }],
    },
  ]);

interface PolicySpec {
  readonly component?: string;
  readonly ingress?: Node;
  readonly egress?: Node;
}

function networkPolicy(name: string, namespace: Node, { component, ingress, egress }: PolicySpec): Node {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace, labels: labels(component ?? 'network') },
    spec: {
      podSelector: component === undefined ? {} : { matchLabels: selectorLabels(component) },
      policyTypes: ['Ingress', 'Egress'],
      ...(ingress === undefined ? {} : { ingress }),
      ...(egress === undefined ? {} : { egress }),
    },
  };
}

/** Nothing is allowed in either namespace, but what the parts need. */
export const networkPolicyObjects: readonly Node[] = [
  when(networkPolicies.enabled, [
    networkPolicy('sealpod-default-deny', namespaces.system, {}),
    networkPolicy('sealpod-default-deny', namespaces.nodes, {}),
    networkPolicy('sealpod-node-agent', namespaces.nodes, {
      component: 'node-agent',
      ingress: metricsIngress(runtime.nodeAgent.healthPort),
      egress: [dnsEgress, apiServerEgress],
    }),
    networkPolicy('sealpod-webhook', namespaces.system, {
      component: 'webhook',
      // The API server calls from an address that no selector names.
      ingress: [{ ports: [{ protocol: 'TCP', port: webhookPort }] }],
    }),
    when(
      controller.enabled,
      networkPolicy('sealpod-controller', namespaces.system, {
        component: 'controller',
        ingress: metricsIngress(controllerHealthPort),
        egress: [
          dnsEgress,
          apiServerEgress,
          { to: [{ namespaceSelector: {}, podSelector: { matchLabels: selectorLabels('key-broker') } }] },
        ],
      }),
    ),
    when(
      uninstallHook.enabled,
      networkPolicy('sealpod-uninstall', namespaces.system, {
        component: 'uninstall',
        egress: [dnsEgress, apiServerEgress],
      }),
    ),
  ]),
];
