import { standardValues } from '@sealpod/deployment';
import { beforeEach, expect, test } from 'vitest';
import { ClusterForTests } from '../cluster-for-tests.ts';
import { KubernetesRefusal } from '../kubernetes/client.ts';
import type { Condition } from '../kubernetes/conditions.ts';
import type { Parts } from '../parts.ts';
import { reconcileRuntime, runtimeReference } from './sealpod-runtime.ts';

const log = { info: () => undefined, warn: () => undefined, error: () => undefined };
const namespaces = { system: 'sealpod-system', nodes: 'sealpod-nodes' };
const agent = { apiVersion: 'apps/v1', kind: 'DaemonSet', namespace: 'sealpod-nodes', name: 'sealpod-node-agent' };
const webhook = { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'sealpod-system', name: 'sealpod-webhook' };

let cluster: ClusterForTests;
let parts: Parts;
beforeEach(() => {
  cluster = new ClusterForTests();
  const config = {
    namespaces,
    trustNamespaces: [],
    images: standardValues.runtime.images,
    networkPolicies: standardValues.networkPolicies,
    nodes: { nodeSelector: {}, tolerations: [], stateDirectory: '/var/lib/sealpod' },
    resyncSeconds: 20,
    healthPort: 0,
    logLevel: 'info',
  };
  parts = { client: cluster, config, log, now: () => new Date('2026-03-01T00:00:00Z') };
  specify({});
});

function specify(changes: Partial<typeof standardValues.runtime>): void {
  const present = cluster.objects.get('SealpodRuntime sealpod');
  cluster.put({
    ...present,
    ...runtimeReference('sealpod'),
    metadata: { ...present?.metadata, name: 'sealpod', generation: (present?.metadata.generation ?? 0) + 1 },
    spec: { ...standardValues.runtime, ...changes },
  });
}

const reconcile = () => reconcileRuntime(parts, 'sealpod');
const names = () => [...cluster.objects.keys()].filter((name) => !name.startsWith('SealpodRuntime')).sort();

async function told(): Promise<string> {
  const status = (await cluster.get(runtimeReference('sealpod')))?.['status'] as { conditions: Condition[] };
  const held = status.conditions.filter((condition) => condition.status === 'True');
  expect(held).toHaveLength(1);
  return `${held[0]?.type} ${held[0]?.reason}: ${held[0]?.message}`;
}

async function nodesAre(desired: number, ready: number): Promise<void> {
  const { metadata } = (await cluster.get(agent)) ?? { metadata: { generation: 0 } };
  await cluster.merge(agent, {
    status: {
      observedGeneration: metadata.generation,
      desiredNumberScheduled: desired,
      updatedNumberScheduled: desired,
      numberReady: ready,
    },
  });
}

test('K-28: makes the objects of the chart, makes again what is gone, and takes away what is not specified any more', async () => {
  await reconcile();
  const all = names();
  expect(all).toContain('DaemonSet sealpod-nodes/sealpod-node-agent');
  expect(all).toContain('RuntimeClass sealpod');
  expect(all).toContain('MutatingWebhookConfiguration sealpod');
  await cluster.delete(agent);
  await reconcile();
  expect(names()).toEqual(all);
  specify({ webhook: { ...standardValues.runtime.webhook, enabled: false } });
  await reconcile();
  expect(names().filter((name) => /ebhook/.test(name))).toEqual([]);
  expect(names()).toContain('DaemonSet sealpod-nodes/sealpod-node-agent');
});

test('its conditions say what is wrong and what to do', async () => {
  await reconcile();
  expect(await told()).toBe('Progressing RollingOut: the node agent is being rolled out');
  await nodesAre(0, 0);
  await reconcile();
  expect(await told()).toContain('Degraded NoNodes: no node fits nodeAgent.nodeSelector');
  await nodesAre(2, 1);
  await reconcile();
  expect(await told()).toBe('Progressing RollingOut: 1 of 2 nodes are ready, 2 have the current node agent');
  cluster.put({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'sealpod-nodes', labels: { 'app.kubernetes.io/component': 'node-agent' } },
    spec: { nodeName: 'worker-2' },
    status: {
      containerStatuses: [
        { name: 'node-agent', state: { waiting: { reason: 'ImagePullBackOff', message: 'no such image' } } },
      ],
    },
  });
  await reconcile();
  expect(await told()).toContain('Degraded NodesNotReady: 1 of 2 nodes are ready');
  expect(await told()).toContain(
    'node worker-2: container node-agent: ImagePullBackOff (no such image); check the name',
  );
  await nodesAre(2, 2);
  await reconcile();
  expect(await told()).toContain('Degraded WebhookUnavailable: no webhook answers');
  await cluster.merge(webhook, { status: { availableReplicas: 1 } });
  expect(await reconcile()).toEqual({});
  expect(await told()).toBe('Ready Ready: 2 nodes run pods of the RuntimeClass');
});

test('the time of a condition is that of its last change', async () => {
  await reconcile();
  const time = async (type: string) => {
    const status = (await cluster.get(runtimeReference('sealpod')))?.['status'] as { conditions: Condition[] };
    return status.conditions.find((condition) => condition.type === type)?.lastTransitionTime;
  };
  parts = { ...parts, now: () => new Date('2026-03-02T00:00:00Z') };
  await nodesAre(2, 1);
  await reconcile();
  expect(await time('Progressing')).toBe('2026-03-01T00:00:00.000Z');
  await nodesAre(0, 0);
  await reconcile();
  expect([await time('Ready'), await time('Degraded')]).toEqual([
    '2026-03-01T00:00:00.000Z',
    '2026-03-02T00:00:00.000Z',
  ]);
});

test('leaves alone what a release of Helm makes', async () => {
  const annotations = { 'meta.helm.sh/release-name': 'mine' };
  cluster.put({ ...agent, metadata: { name: agent.name, namespace: agent.namespace, annotations } });
  await reconcile();
  expect(await told()).toContain('Degraded OwnedByHelm: the release mine of Helm makes the runtime');
  expect(names()).toEqual(['DaemonSet sealpod-nodes/sealpod-node-agent']);
});

test('says what the API server has refused', async () => {
  cluster.refuse = ({ kind }) =>
    kind === 'RuntimeClass' ? new KubernetesRefusal(403, 'Forbidden', 'runtimeclasses is forbidden') : undefined;
  await reconcile();
  expect(await told()).toContain(
    'Degraded ApplyFailed: RuntimeClass sealpod was refused: runtimeclasses is forbidden; check the roles',
  );
});

test('is removed in order: no new pods, then the nodes, then the rest', async () => {
  await reconcile();
  await nodesAre(2, 2);
  cluster.markDeleted(runtimeReference('sealpod'));
  await reconcile();
  expect(cluster.deleted).toContain('RuntimeClass sealpod');
  expect(cluster.deleted).not.toContain('DaemonSet sealpod-nodes/sealpod-node-agent');
  expect(await told()).toContain('Progressing RemovingFromNodes: ');
  const removing = (await cluster.get(agent)) as unknown as {
    spec: { template: { spec: { initContainers: { command: string[] }[]; containers: { name: string }[] } } };
  };
  const { initContainers, containers } = removing.spec.template.spec;
  expect(initContainers[0]?.command.at(-1)).toBe('--uninstall');
  expect(containers.map(({ name }) => name)).toEqual(['removed']);
  expect(containers[0]).not.toHaveProperty('readinessProbe');
  await nodesAre(2, 1);
  await reconcile();
  expect(await told()).toContain('1 of 2 nodes have removed it');
  await nodesAre(2, 2);
  await reconcile();
  expect([...cluster.objects.keys()]).toEqual([]);
});

test('nodes that do not come back are given up on request', async () => {
  await reconcile();
  await nodesAre(2, 2);
  cluster.markDeleted(runtimeReference('sealpod'));
  await reconcile();
  expect(await told()).toContain('annotate this object with sealpod.io/skip-unreachable-nodes=true');
  await cluster.merge(runtimeReference('sealpod'), {
    metadata: { annotations: { 'sealpod.io/skip-unreachable-nodes': 'true' } },
  });
  await reconcile();
  expect([...cluster.objects.keys()]).toEqual([]);
});
