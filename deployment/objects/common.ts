import { each, type Node, type Placeholders, placeholders } from '../template/nodes.ts';
import { chartSettings } from '../values/chart.ts';

/** Version of everything that is installed. */
export const version = '0.1.0';

/** What stands for the operator's values in the objects below. */
export const values = placeholders(chartSettings);
export type Values = Placeholders<typeof chartSettings>;

/** Labels of every object, by which it is found. */
export const partOf = { 'app.kubernetes.io/part-of': 'sealpod' } as const;

/** Labels that tell the pods of one part from those of another. They never change: selectors of workloads cannot. */
export const selectorLabels = (component: string) => ({
  'app.kubernetes.io/name': 'sealpod',
  'app.kubernetes.io/component': component,
});

export const labels = (component: string) => ({ ...selectorLabels(component), ...partOf });

/** What the Pod Security Standard "restricted" asks of a container, and a root file system that cannot be written. */
export const restrictedContainer = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ['ALL'] },
} as const;

export const restrictedPod = {
  runAsNonRoot: true,
  runAsUser: 65532,
  runAsGroup: 65532,
  fsGroup: 65532,
  seccompProfile: { type: 'RuntimeDefault' },
} as const;

/** Where the two images have their programs. */
export const nodeProgram = '/opt/sealpod/lib/node';
export const serviceProgram = '/app/node';

/** Pods of one part on different nodes, where there are several. */
export const spread = (component: string): Node => [
  {
    maxSkew: 1,
    topologyKey: 'kubernetes.io/hostname',
    whenUnsatisfiable: 'ScheduleAnyway',
    labelSelector: { matchLabels: selectorLabels(component) },
  },
];

export const pullSecrets: Node = each(values.runtime.images.pullSecrets, 'secret', (secret) => ({ name: secret }));

/** A budget that keeps one pod of a part while nodes are drained. */
export const disruptionBudget = (component: string, name: string, namespace: Node): Node => ({
  apiVersion: 'policy/v1',
  kind: 'PodDisruptionBudget',
  metadata: { name, namespace, labels: labels(component) },
  spec: { maxUnavailable: 1, selector: { matchLabels: selectorLabels(component) } },
});

/** A probe by HTTP. */
export const probe = (path: string, port: string, scheme: 'HTTP' | 'HTTPS' = 'HTTP') => ({
  httpGet: { path, port, scheme },
  periodSeconds: 10,
  timeoutSeconds: 5,
  failureThreshold: 3,
});
