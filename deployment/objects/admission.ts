import { type UnsupportedFeature, unsupportedFeatures } from '@sealpod/protocol/unsupported';
import { type Node, when } from '../template/nodes.ts';
import { partOf, type Values } from './common.ts';
import { peerRuntimeClassName, runtimeClassName } from './runtime-class.ts';

const apiVersion = 'admissionregistration.k8s.io/v1';

/** Namespaces with this label set to `true` may hold confidential pods only. */
const confidentialNamespaces = { matchLabels: { 'sealpod.io/confidential': 'true' } } as const;

/** Names of the configurations by which the API server asks the webhook. */
export const webhookConfigurationName = 'sealpod';

/** The expression that is true for pods of these RuntimeClasses. */
export function confidentialExpression(classes: readonly string[]): string {
  return `has(object.spec.runtimeClassName) && object.spec.runtimeClassName in ${JSON.stringify([...classes].sort())}`;
}

const localClasses = [runtimeClassName];
const allClasses = [runtimeClassName, peerRuntimeClassName];

/** A node that depends on whether there is a cloud provider. */
const byClasses = (values: Values, of: (classes: readonly string[]) => Node): Node =>
  when(values.runtime.peer.provider, of(allClasses), of(localClasses));

/**
 * What makes the API server ask the webhook: both configurations fail closed, and are never called but for confidential
 * pods, so that nothing else waits for the webhook.
 *
 * @param isConfidential `confidentialExpression`
 * @param clientConfig where the webhook is, by path
 * @param byDefault the webhook that gives a RuntimeClass to pods of confidential namespaces, where there is to be one
 */
export function webhookConfigurations(
  isConfidential: Node,
  clientConfig: (path: string) => Node,
  byDefault: (webhook: Node) => readonly Node[] = () => [],
) {
  const webhook = (name: string, path: string, resources: readonly string[], operations: readonly string[]) => ({
    name: `${name}.sealpod.io`,
    clientConfig: clientConfig(path),
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations, resources, scope: 'Namespaced' }],
    matchConditions: [{ name: 'confidential-runtime-class', expression: isConfidential }],
    failurePolicy: 'Fail',
    matchPolicy: 'Equivalent',
    sideEffects: 'None',
    timeoutSeconds: 5,
    admissionReviewVersions: ['v1'],
  });
  const metadata = { name: webhookConfigurationName, labels: partOf };
  return [
    {
      apiVersion,
      kind: 'MutatingWebhookConfiguration',
      metadata,
      webhooks: [
        ...byDefault({
          ...webhook('runtime-class', '/runtime-class', ['pods'], ['CREATE']),
          namespaceSelector: confidentialNamespaces,
          matchConditions: [{ name: 'no-runtime-class', expression: '!has(object.spec.runtimeClassName)' }],
        }),
        { ...webhook('mutate', '/mutate', ['pods'], ['CREATE']), reinvocationPolicy: 'IfNeeded' },
      ],
    },
    {
      apiVersion,
      kind: 'ValidatingWebhookConfiguration',
      metadata,
      webhooks: [
        webhook('validate', '/validate', ['pods', 'pods/ephemeralcontainers', 'pods/resize'], ['CREATE', 'UPDATE']),
      ],
    },
  ];
}

/** What a pod of the runtime class may not ask for, in the Common Expression Language. True where it does not. */
const refusals: Partial<Record<UnsupportedFeature, string>> = {
  hostNetwork: '!object.spec.?hostNetwork.orValue(false)',
  hostPID: '!object.spec.?hostPID.orValue(false)',
  hostIPC: '!object.spec.?hostIPC.orValue(false)',
  shareProcessNamespace: '!object.spec.?shareProcessNamespace.orValue(false)',
  hostPath: 'object.spec.?volumes.orValue([]).all(volume, !has(volume.hostPath))',
  privileged:
    '(object.spec.containers + object.spec.?initContainers.orValue([])).all(container, !container.?securityContext.?privileged.orValue(false))',
};

/**
 * Refuses at admission, in the API server itself, pods of the runtime class that no guest would run: the event of their
 * owner says why. The shim refuses them again.
 */
export function unsupportedPolicy(isConfidential: Node) {
  return policy('sealpod.io-unsupported', {
    condition: isConfidential,
    operations: ['CREATE'],
    resources: ['pods'],
    validations: Object.entries(refusals).map(([feature, expression]) => ({
      expression,
      message: unsupportedFeatures[feature as UnsupportedFeature],
    })),
  });
}

/** Images by digest, for confidential pods. */
export function imageDigestPolicy(isConfidential: Node) {
  return policy('sealpod-image-digests', {
    condition: isConfidential,
    validations: [
      {
        expression: allContainers("c.image.matches('@sha256:[0-9a-f]{64}$')"),
        message: 'imageDigest: an image is not named by digest; `sealpod transform` pins it',
      },
    ],
  });
}

/** Confidential pods only, in namespaces that are labelled so. */
export function confidentialNamespacePolicy(isConfidential: Node, message: Node) {
  return policy('sealpod-confidential-namespaces', {
    condition: 'true',
    validations: [{ expression: isConfidential, message }],
    matchResources: { namespaceSelector: confidentialNamespaces },
  });
}

/** What `confidentialNamespacePolicy` says to whoever is refused. */
export const confidentialNamespaceMessage = (classes: readonly string[]): string =>
  `runtimeClass: this namespace is for pods of ${JSON.stringify([...classes].sort())}`;

function allContainers(condition: string): string {
  return ['containers', 'initContainers', 'ephemeralContainers']
    .map((list) => `(!has(object.spec.${list}) || object.spec.${list}.all(c, ${condition}))`)
    .join(' && ');
}

/** Pods that were there before may still be labelled, and let go of their finalizers. */
const changes = {
  name: 'changes',
  expression: "request.operation != 'UPDATE' || object.spec != oldObject.spec",
};

interface PolicyOptions {
  readonly condition: Node;
  readonly validations: readonly { readonly expression: Node; readonly message: Node }[];
  readonly operations?: readonly string[];
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly matchResources?: Node;
}

/** A ValidatingAdmissionPolicy, for pods where nothing else is said, and its binding. */
export function policy(name: string, options: PolicyOptions) {
  const {
    operations = ['CREATE', 'UPDATE'],
    resources = ['pods', 'pods/ephemeralcontainers'],
    matchResources,
  } = options;
  const metadata = { name, labels: partOf };
  return [
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicy',
      metadata,
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: { resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations, resources }] },
        matchConditions: [
          { name: 'applies', expression: options.condition },
          ...(options.resources === undefined ? [changes] : []),
        ],
        validations: options.validations.map((validation) => ({ ...validation, reason: 'Forbidden' })),
      },
    },
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata,
      spec: {
        policyName: name,
        validationActions: ['Deny'],
        ...(matchResources === undefined ? {} : { matchResources }),
      },
    },
  ];
}

/** Configurations and policies of the installation, as the operator chose. */
export function admissionObjects(values: Values): Node[] {
  const { webhook, policies } = values.runtime;
  const isConfidential = byClasses(values, confidentialExpression);
  const clientConfig = (path: string): Node => ({
    service: { name: 'sealpod-webhook', namespace: values.namespaces.system, path, port: 443 },
    caBundle: when(webhook.caBundle, webhook.caBundle),
  });
  return [
    when(
      webhook.enabled,
      webhookConfigurations(isConfidential, clientConfig, (entry) => [when(webhook.defaultRuntimeClass, entry)]),
    ),
    when(policies.unsupported, unsupportedPolicy(isConfidential)),
    when(policies.imageDigests, imageDigestPolicy(isConfidential)),
    when(
      policies.confidentialNamespaces,
      confidentialNamespacePolicy(isConfidential, byClasses(values, confidentialNamespaceMessage)),
    ),
  ];
}
