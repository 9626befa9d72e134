import { each, type Node, textOf, when } from '../template/nodes.ts';
import { policy, webhookConfigurationName } from './admission.ts';
import { labels, partOf, values } from './common.ts';
import { controllerName } from './controller.ts';
import { nodeAgentName } from './node-agent.ts';
import { webhookName } from './webhook.ts';

const { namespaces, controller } = values;
const rbac = 'rbac.authorization.k8s.io';

interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}

const rule = (
  group: string,
  resources: readonly string[],
  verbs: readonly string[],
  resourceNames?: readonly string[],
): PolicyRule => ({ apiGroups: [group], resources, verbs, ...(resourceNames === undefined ? {} : { resourceNames }) });

const watched = ['get', 'list', 'watch'] as const;
/** What server-side apply needs, and what takes away what was applied. */
const applied = ['create', 'patch', 'delete'] as const;

/** A ServiceAccount. The token is mounted where a pod asks for it. */
export function serviceAccount(name: string, namespace: Node, component: string, more: Node = {}): Node {
  return {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name, namespace, labels: labels(component), ...(more as object) },
  };
}

interface Subject {
  readonly name: string;
  readonly namespace: Node;
}

/** What a ServiceAccount may do everywhere: a ClusterRole and its binding. */
export function clusterAccess(name: string, subject: Subject, rules: readonly PolicyRule[], more: Node = {}): Node[] {
  const metadata = { name, labels: partOf, ...(more as object) };
  return [
    { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata, rules: rules as unknown as Node },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata,
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name },
      subjects: [{ kind: 'ServiceAccount', name: subject.name, namespace: subject.namespace }],
    },
  ];
}

/** What a ServiceAccount may do in one namespace: a Role and its binding. */
export function access(
  name: string,
  namespace: Node,
  subject: Subject,
  rules: readonly PolicyRule[],
  more: Node = {},
): Node[] {
  const metadata = { name, namespace, labels: partOf, ...(more as object) };
  return [
    { apiVersion: `${rbac}/v1`, kind: 'Role', metadata, rules: rules as unknown as Node },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: rbac, kind: 'Role', name },
      subjects: [{ kind: 'ServiceAccount', name: subject.name, namespace: subject.namespace }],
    },
  ];
}

const nodeAgent: Subject = { name: nodeAgentName, namespace: namespaces.nodes };
const controllerAccount: Subject = { name: controllerName, namespace: namespaces.system };

/**
 * The node agent writes label and capacity of its node. RBAC cannot say "its own", so that a policy does: by the node
 * that the API server wrote into the agent's token.
 */
const nodeAgentAccess: readonly Node[] = [
  serviceAccount(nodeAgentName, namespaces.nodes, 'node-agent'),
  ...clusterAccess('sealpod-node-agent', nodeAgent, [
    rule('', ['nodes'], ['get', 'patch']),
    rule('', ['nodes/status'], ['patch']),
    // What happens to a pod's machine is told on the pod, in its namespace.
    rule('events.k8s.io', ['events'], ['create', 'patch']),
  ]),
  ...policy('sealpod-node-agent-own-node', {
    condition: textOf`request.userInfo.username == 'system:serviceaccount:${namespaces.nodes}:sealpod-node-agent'`,
    operations: ['UPDATE'],
    resources: ['nodes', 'nodes/status'],
    validations: [
      {
        expression:
          "request.userInfo.extra[?'authentication.kubernetes.io/node-name'].orValue(['']).exists(name, name == object.metadata.name)",
        message: 'the node agent may change its own node only',
      },
      {
        expression:
          "object.spec == oldObject.spec && object.metadata.?labels.orValue({}).all(key, key.contains('sealpod.io/') || oldObject.metadata.?labels.orValue({})[?key].orValue('') == object.metadata.labels[key]) && oldObject.metadata.?labels.orValue({}).all(key, key.contains('sealpod.io/') || key in object.metadata.?labels.orValue({}))",
        message: 'the node agent may change labels of sealpod only, and not the specification of its node',
      },
    ],
  }),
];

/** What the controller looks after in a namespace with key brokers. It makes their keys, so that it has to write Secrets. */
const trustRules: readonly PolicyRule[] = [
  rule('', ['secrets'], ['get', 'create', 'patch', 'delete']),
  rule('', ['configmaps', 'services', 'persistentvolumeclaims'], applied),
  rule('', ['pods'], ['list']),
  rule('apps', ['statefulsets'], [...watched, ...applied]),
  rule('networking.k8s.io', ['networkpolicies'], applied),
  rule('sealpod.io', ['trustservices', 'referencevalues'], [...watched, 'patch']),
  rule('sealpod.io', ['trustservices/status', 'referencevalues/status'], ['get', 'patch']),
];

const admission = 'admissionregistration.k8s.io';
const policyNames = ['sealpod.io-unsupported', 'sealpod-image-digests', 'sealpod-confidential-namespaces'];

/** What the controller may do: nothing about roles, and Secrets of its own namespaces only. */
const controllerAccess: readonly Node[] = [
  serviceAccount(controllerName, namespaces.system, 'controller'),
  ...clusterAccess('sealpod-controller', controllerAccount, [
    rule('sealpod.io', ['sealpodruntimes', 'podvmimages'], [...watched, 'patch']),
    rule('sealpod.io', ['sealpodruntimes/status', 'podvmimages/status'], ['get', 'patch']),
    rule(
      admission,
      ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'],
      ['get', 'patch', 'delete'],
      [webhookConfigurationName],
    ),
    rule(
      admission,
      ['validatingadmissionpolicies', 'validatingadmissionpolicybindings'],
      ['patch', 'delete'],
      policyNames,
    ),
    // A name cannot be asked for where an object is made.
    rule(
      admission,
      [
        'mutatingwebhookconfigurations',
        'validatingwebhookconfigurations',
        'validatingadmissionpolicies',
        'validatingadmissionpolicybindings',
      ],
      ['create'],
    ),
    rule('node.k8s.io', ['runtimeclasses'], ['patch', 'delete'], ['sealpod', 'sealpod-peer']),
    rule('node.k8s.io', ['runtimeclasses'], ['create']),
  ]),
  ...access('sealpod-controller', namespaces.nodes, controllerAccount, [
    rule('apps', ['daemonsets'], [...watched, ...applied]),
    rule('', ['configmaps'], applied),
    rule('', ['pods'], ['list']),
  ]),
  ...access('sealpod-controller', namespaces.system, controllerAccount, [
    rule('apps', ['deployments'], [...watched, ...applied]),
    rule('policy', ['poddisruptionbudgets'], applied),
    rule('coordination.k8s.io', ['leases'], ['create']),
    rule('coordination.k8s.io', ['leases'], ['get', 'update'], [controllerName]),
    ...trustRules,
  ]),
  each(controller.trustNamespaces, 'namespace', (namespace) =>
    access('sealpod-controller', namespace as unknown as Node, controllerAccount, trustRules),
  ),
];

/** ServiceAccounts and what they may do. The webhook has no token at all. */
export const accessObjects: readonly Node[] = [
  ...nodeAgentAccess,
  serviceAccount(webhookName, namespaces.system, 'webhook'),
  when(controller.enabled, controllerAccess),
];
