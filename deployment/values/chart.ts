import { logLevels, runtimeSettings } from './runtime.ts';
import { flag, free, group, integer, list, map, text, type ValueOf } from './setting.ts';

const name = '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$';

/** All values of the chart. */
export const chartSettings = group('Values of the chart.', {
  namespaces: group('Where everything is. Two namespaces: only the node agent is privileged.', {
    create: flag(
      'Make both, with the labels of the Pod Security Standards. The namespace of the release itself is never made.',
      true,
    ),
    system: text('Controller, webhook and, by default, key brokers: Pod Security Standard restricted.', {
      default: 'sealpod-system',
      pattern: name,
    }),
    nodes: text('The node agent, which is privileged: nobody else should be allowed to make pods here.', {
      default: 'sealpod-nodes',
      pattern: name,
    }),
  }),
  runtimeManagedBy: text(
    'Who makes the objects of the runtime. Chart: this release. Resource: the controller, for a SealpodRuntime that you apply; `runtime` below is then not used but for images.',
    { default: 'Chart', choices: ['Chart', 'Resource'] },
  ),
  runtime: runtimeSettings,
  controller: group('The controller: certificates of the webhook, and the resources of sealpod.io.', {
    enabled: flag('Whether there is one. Without it the webhook needs `runtime.webhook.caBundle`.', true),
    replicas: integer('How many run; one of them acts.', { default: 2, minimum: 1, maximum: 5 }),
    resources: free('Requests and limits of each.', {
      requests: { cpu: '20m', memory: '128Mi' },
      limits: { memory: '384Mi' },
    }),
    trustNamespaces: list(
      'Further namespaces in which TrustServices and ReferenceValues are looked after. The controller may read and write Secrets in them.',
      text('Name of a namespace.', { pattern: name }),
    ),
    resyncSeconds: integer('How often everything is compared with what it should be.', {
      default: 20,
      minimum: 5,
      maximum: 3600,
    }),
    logLevel: text('How much it logs.', { default: 'info', choices: logLevels }),
  }),
  networkPolicies: group('NetworkPolicies of both namespaces: nothing is allowed but what is needed.', {
    enabled: flag('Whether there are any.', true),
    apiServerPorts: list(
      'Ports of the API server, as a pod reaches it: that of its Service and that of its endpoints.',
      integer('A port.', { minimum: 1, maximum: 65_535 }),
      { default: [443, 6443], minItems: 1 },
    ),
    metricsFrom: map('Labels of namespaces that may read metrics.', { 'kubernetes.io/metadata.name': 'monitoring' }),
    guestsFrom: list(
      'Address ranges from which guests reach key brokers, e.g. of machines that are no pods.',
      text('A range, e.g. 10.0.0.0/8.', { pattern: '^[0-9a-fA-F.:]+/[0-9]{1,3}$' }),
    ),
  }),
  tenants: list(
    'Namespaces that may have a number of machines: for each a ResourceQuota, and a LimitRange that gives containers a size.',
    group('A namespace.', {
      namespace: text('Its name; it has to exist.', { pattern: name }),
      machines: integer('How many machines its pods may have together.', { minimum: 0, maximum: 100_000 }),
      defaultCpu: text('Limit of a container that names none.', { default: '500m' }),
      defaultMemory: text('Limit of a container that names none.', { default: '256Mi' }),
    }),
  ),
  uninstallHook: group('What takes the runtime off the nodes when the release is deleted.', {
    enabled: flag('Without it nodes keep what was placed on them.', true),
    timeoutSeconds: integer('How long the nodes may take together.', { default: 300, minimum: 30, maximum: 3600 }),
  }),
});

export type ChartValues = ValueOf<typeof chartSettings>;
