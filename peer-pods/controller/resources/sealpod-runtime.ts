import { nodeAgentName, type RuntimeValues, runtimeManifests, webhookName } from '@sealpod/deployment';
import { degraded, progressing, ready, type Verdict } from '../kubernetes/conditions.ts';
import { type KubernetesObject, nameOf, type ObjectReference, referenceTo } from '../kubernetes/objects.ts';
import type { Outcome } from '../kubernetes/work-queue.ts';
import { type Parts, soonMs } from '../parts.ts';
import { removeFromNodes } from '../removal.ts';
import { troubles } from './pods.ts';
import { refusedVerdict, writeStatus } from './status.ts';
import { type DaemonSet, isComplete, rolloutOf } from './workloads.ts';

const finalizer = 'sealpod.io/remove-from-nodes';
/** Set to `true` by an operator who has given up on nodes that cannot be reached. */
const skipNodesAnnotation = 'sealpod.io/skip-unreachable-nodes';
const helmAnnotation = 'meta.helm.sh/release-name';

export interface SealpodRuntime extends KubernetesObject {
  readonly spec: RuntimeValues;
  readonly status?: { readonly objects?: readonly ObjectReference[] };
}

interface Deployment extends KubernetesObject {
  readonly status?: { readonly availableReplicas?: number };
}

export const runtimeReference = (name: string): ObjectReference => ({
  apiVersion: 'sealpod.io/v1alpha1',
  kind: 'SealpodRuntime',
  name,
});

/** Makes the objects of a SealpodRuntime be what it says, or takes all of them away. */
export async function reconcileRuntime(parts: Parts, name: string): Promise<Outcome> {
  const { client } = parts;
  const runtime = await client.get<SealpodRuntime>(runtimeReference(name));
  if (runtime === undefined) return {};
  if (runtime.metadata.deletionTimestamp !== undefined) return remove(parts, runtime);
  const finalizers = runtime.metadata.finalizers ?? [];
  if (!finalizers.includes(finalizer)) {
    await client.merge(referenceTo(runtime), {
      metadata: { finalizers: [...finalizers, finalizer], resourceVersion: runtime.metadata.resourceVersion },
    });
  }
  const desired = runtimeManifests(runtime.spec, parts.config.namespaces) as unknown as readonly KubernetesObject[];
  const foreign = await ownedByHelm(parts, desired);
  if (foreign !== undefined) {
    await writeStatus(parts, runtime, foreign);
    return { againAfterMs: soonMs };
  }
  const refused = await applyAll(parts, runtime, desired);
  const status = await look(parts);
  await writeStatus(parts, runtime, refused ?? status.verdict, {
    nodes: status.nodes,
    objects: desired.map(referenceTo),
  });
  return status.verdict.state === 'ready' && refused === undefined ? {} : { againAfterMs: soonMs };
}

/** Two makers of one object would undo each other's work for ever. */
async function ownedByHelm({ client }: Parts, desired: readonly KubernetesObject[]): Promise<Verdict | undefined> {
  const daemonSet = desired.find(({ kind }) => kind === 'DaemonSet');
  const present = daemonSet === undefined ? undefined : await client.get(referenceTo(daemonSet));
  const release = present?.metadata.annotations?.[helmAnnotation];
  if (release === undefined) return undefined;
  return degraded(
    'OwnedByHelm',
    `the release ${release} of Helm makes the runtime; delete this SealpodRuntime, or upgrade the release with runtimeManagedBy=Resource`,
  );
}

async function applyAll(
  { client, log }: Parts,
  runtime: SealpodRuntime,
  desired: readonly KubernetesObject[],
): Promise<Verdict | undefined> {
  for (const object of desired) {
    try {
      const labels = { ...object.metadata.labels, 'app.kubernetes.io/managed-by': 'sealpod-controller' };
      await client.apply({ ...object, metadata: { ...object.metadata, labels } });
    } catch (thrown) {
      return refusedVerdict(thrown, nameOf(referenceTo(object)));
    }
  }
  const wanted = new Set(desired.map((object) => nameOf(referenceTo(object))));
  for (const left of runtime.status?.objects ?? []) {
    if (wanted.has(nameOf(left))) continue;
    log.info({ object: nameOf(left) }, 'not specified any more, deleted');
    await client.delete(left);
  }
  return undefined;
}

async function look(parts: Parts): Promise<{ readonly verdict: Verdict; readonly nodes: object }> {
  const { client, config } = parts;
  const { nodes: namespace, system } = config.namespaces;
  const workload = { apiVersion: 'apps/v1', kind: 'DaemonSet', namespace, name: nodeAgentName };
  const daemonSet = await client.get<DaemonSet>(workload);
  const rollout = rolloutOf(daemonSet);
  const { desired, updated, ready: serving } = rollout;
  const nodes = { desired, updated, ready: serving };
  if (!rollout.current) return { nodes, verdict: progressing('RollingOut', 'the node agent is being rolled out') };
  if (desired === 0) {
    const message = 'no node fits nodeAgent.nodeSelector and its tolerations; label nodes, or change the selector';
    return { nodes, verdict: degraded('NoNodes', message) };
  }
  if (!isComplete(rollout)) {
    const found = await troubles(parts, namespace, 'app.kubernetes.io/component=node-agent');
    const counted = `${serving} of ${desired} nodes are ready, ${updated} have the current node agent`;
    if (found.length === 0) return { nodes, verdict: progressing('RollingOut', counted) };
    return { nodes, verdict: degraded('NodesNotReady', `${counted}; ${found.slice(0, 5).join('; ')}`) };
  }
  const webhook = await client.get<Deployment>({
    ...workload,
    kind: 'Deployment',
    namespace: system,
    name: webhookName,
  });
  if (webhook !== undefined && (webhook.status?.availableReplicas ?? 0) === 0) {
    const message = `no webhook answers, so that pods of the RuntimeClass are refused; see the pods of Deployment ${system}/${webhookName}`;
    return { nodes, verdict: degraded('WebhookUnavailable', message) };
  }
  return { nodes, verdict: ready(`${desired} nodes run pods of the RuntimeClass`) };
}

/** In an order that leaves nothing half done: no new pods, then the nodes, then all the rest. */
async function remove(parts: Parts, runtime: SealpodRuntime): Promise<Outcome> {
  const { client, config } = parts;
  if (!(runtime.metadata.finalizers ?? []).includes(finalizer)) return {};
  const objects = runtime.status?.objects ?? [];
  const isCluster = ({ namespace }: ObjectReference): boolean => namespace === undefined;
  for (const object of objects.filter(isCluster)) await client.delete(object);
  const skip = runtime.metadata.annotations?.[skipNodesAnnotation] === 'true';
  const namespace = config.namespaces.nodes;
  const agent = { apiVersion: 'apps/v1', kind: 'DaemonSet', namespace, name: nodeAgentName };
  const removal = objects.length === 0 ? { done: true, message: '' } : await removeFromNodes(parts, agent);
  if (!removal.done && !skip) {
    const message = `${removal.message}. Nodes that will not come back: annotate this object with ${skipNodesAnnotation}=true`;
    await writeStatus(parts, runtime, progressing('RemovingFromNodes', message));
    return { againAfterMs: 1000 };
  }
  for (const object of objects.filter((reference) => !isCluster(reference))) await client.delete(object);
  await client.merge(referenceTo(runtime), {
    metadata: {
      finalizers: (runtime.metadata.finalizers ?? []).filter((name) => name !== finalizer),
      resourceVersion: runtime.metadata.resourceVersion,
    },
  });
  return {};
}
