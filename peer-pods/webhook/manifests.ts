import type { WebhookConfig } from './config.ts';

/** Where the API server finds the webhook: a Service in the cluster, or a URL. */
export type WebhookLocation =
  | { readonly service: { readonly name: string; readonly namespace: string; readonly port?: number } }
  | { readonly url: string };

/** Namespaces with this label set to `true` may hold confidential pods only. */
const confidentialNamespaceLabel = 'sealpod.io/confidential';

/**
 * What makes the API server ask: both webhook configurations, which fail closed but for pods of the confidential
 * RuntimeClasses are never called, and policies that need no webhook at all: images by digest, and confidential namespaces.
 */
export function admissionManifests(
  config: Pick<WebhookConfig, 'runtimeClasses' | 'defaultRuntimeClass'>,
  location: WebhookLocation,
  caPem: string,
): object[] {
  const classes = JSON.stringify([...config.runtimeClasses.keys()].sort());
  const isConfidential = `has(object.spec.runtimeClassName) && object.spec.runtimeClassName in ${classes}`;
  const clientConfig = (path: string) => ({
    caBundle: Buffer.from(caPem).toString('base64'),
    ...('url' in location ? { url: location.url + path } : { service: { ...location.service, path } }),
  });
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
  const meta = (name: string) => ({ name, labels: { 'app.kubernetes.io/part-of': 'sealpod' } });
  return [
    {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      metadata: meta('sealpod'),
      webhooks: [
        ...(config.defaultRuntimeClass === undefined
          ? []
          : [
              {
                ...webhook('runtime-class', '/runtime-class', ['pods'], ['CREATE']),
                namespaceSelector: { matchLabels: { [confidentialNamespaceLabel]: 'true' } },
                matchConditions: [{ name: 'no-runtime-class', expression: '!has(object.spec.runtimeClassName)' }],
              },
            ]),
        { ...webhook('mutate', '/mutate', ['pods'], ['CREATE']), reinvocationPolicy: 'IfNeeded' },
      ],
    },
    {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingWebhookConfiguration',
      metadata: meta('sealpod'),
      webhooks: [
        webhook('validate', '/validate', ['pods', 'pods/ephemeralcontainers', 'pods/resize'], ['CREATE', 'UPDATE']),
      ],
    },
    ...policy('sealpod-image-digests', isConfidential, [
      {
        expression: allContainers("c.image.matches('@sha256:[0-9a-f]{64}$')"),
        message: 'imageDigest: an image is not named by digest; `sealpod transform` pins it',
      },
    ]),
    ...policy(
      'sealpod-confidential-namespaces',
      'true',
      [{ expression: isConfidential, message: `runtimeClass: this namespace is for pods of ${classes}` }],
      { namespaceSelector: { matchLabels: { [confidentialNamespaceLabel]: 'true' } } },
    ),
  ];
}

function allContainers(condition: string): string {
  return ['containers', 'initContainers', 'ephemeralContainers']
    .map((list) => `(!has(object.spec.${list}) || object.spec.${list}.all(c, ${condition}))`)
    .join(' && ');
}

/** A ValidatingAdmissionPolicy for pods, and its binding. */
function policy(
  name: string,
  condition: string,
  validations: readonly { readonly expression: string; readonly message: string }[],
  matchResources: object = {},
): object[] {
  const apiVersion = 'admissionregistration.k8s.io/v1';
  const metadata = { name, labels: { 'app.kubernetes.io/part-of': 'sealpod' } };
  return [
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicy',
      metadata,
      spec: {
        failurePolicy: 'Fail',
        matchConstraints: {
          resourceRules: [
            {
              apiGroups: [''],
              apiVersions: ['v1'],
              operations: ['CREATE', 'UPDATE'],
              resources: ['pods', 'pods/ephemeralcontainers'],
            },
          ],
        },
        matchConditions: [
          { name: 'applies', expression: condition },
          // Pods that were there before may still be labelled, and let go of their finalizers.
          { name: 'changes', expression: "request.operation != 'UPDATE' || object.spec != oldObject.spec" },
        ],
        validations: validations.map((item) => ({ ...item, reason: 'Forbidden' })),
      },
    },
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata,
      spec: {
        policyName: name,
        validationActions: ['Deny'],
        ...(Object.keys(matchResources).length > 0 ? { matchResources } : {}),
      },
    },
  ];
}
