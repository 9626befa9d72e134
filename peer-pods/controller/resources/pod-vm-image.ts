import { type PodVmImageSpec, podVmImageLabel, podVmImageManifest, podVmImageName } from '@sealpod/deployment';
import { degraded, progressing, ready, type Verdict } from '../kubernetes/conditions.ts';
import { type KubernetesObject, referenceTo } from '../kubernetes/objects.ts';
import type { Outcome } from '../kubernetes/work-queue.ts';
import { type Parts, soonMs } from '../parts.ts';
import { isReady, type Pod, troubleOf } from './pods.ts';
import { runtimeReference, type SealpodRuntime } from './sealpod-runtime.ts';
import { refusedVerdict, writeStatus } from './status.ts';
import { type DaemonSet, isComplete, type Rollout, rolloutOf } from './workloads.ts';

const finalizer = 'sealpod.io/remove-image';

export interface PodVmImage extends KubernetesObject {
  readonly spec: PodVmImageSpec;
}

/** Has every node of the runtime hold the image, or none. */
export async function reconcilePodVmImage(parts: Parts, name: string): Promise<Outcome> {
  const { client } = parts;
  const image = await client.get<PodVmImage>({ apiVersion: 'sealpod.io/v1alpha1', kind: 'PodVmImage', name });
  if (image === undefined) return {};
  const removing = image.metadata.deletionTimestamp !== undefined;
  const finalizers = image.metadata.finalizers ?? [];
  const setFinalizers = (next: readonly string[]) =>
    client.merge(referenceTo(image), {
      metadata: { finalizers: next, resourceVersion: image.metadata.resourceVersion },
    });
  if (removing && !finalizers.includes(finalizer)) return {};
  if (!removing && !finalizers.includes(finalizer)) await setFinalizers([...finalizers, finalizer]);
  const { daemonSet, refused } = await applyDaemonSet(parts, image, removing);
  const rollout = rolloutOf(daemonSet);
  if (removing && isComplete(rollout)) {
    await client.delete(daemonSetReference(parts, name));
    await setFinalizers(finalizers.filter((other) => other !== finalizer));
    return {};
  }
  const nodes = await nodesOf(parts, name);
  const verdict = refused ?? verdictOf(rollout, nodes, removing);
  await writeStatus(parts, image, verdict, { desired: rollout.desired, ready: removing ? 0 : rollout.ready, nodes });
  return verdict.state === 'ready' ? {} : { againAfterMs: removing ? 1000 : soonMs };
}

function daemonSetReference({ config }: Parts, name: string) {
  return { apiVersion: 'apps/v1', kind: 'DaemonSet', namespace: config.namespaces.nodes, name: podVmImageName(name) };
}

async function applyDaemonSet(
  parts: Parts,
  image: PodVmImage,
  remove: boolean,
): Promise<{ readonly daemonSet?: DaemonSet; readonly refused?: Verdict }> {
  const { client, config } = parts;
  const runtime = await client.get<SealpodRuntime>(runtimeReference('sealpod'));
  const nodeAgent = runtime?.spec.nodeAgent ?? config.nodes;
  const manifest = podVmImageManifest({
    name: image.metadata.name,
    spec: image.spec,
    namespace: config.namespaces.nodes,
    images: config.images,
    stateDirectory: nodeAgent.stateDirectory,
    nodeSelector: nodeAgent.nodeSelector,
    tolerations: nodeAgent.tolerations,
    remove,
  }) as unknown as KubernetesObject;
  try {
    return { daemonSet: (await client.apply(manifest)) as DaemonSet };
  } catch (thrown) {
    return { refused: refusedVerdict(thrown, 'its DaemonSet') };
  }
}

interface NodeState {
  readonly name: string;
  readonly ready: boolean;
  readonly message?: string;
}

async function nodesOf({ client, config }: Parts, name: string): Promise<NodeState[]> {
  const labels = `${podVmImageLabel}=${name}`;
  const { items } = await client.list<Pod>('v1', 'Pod', { namespace: config.namespaces.nodes, labels });
  const states = new Map<string, NodeState>();
  for (const pod of items) {
    const { nodeName } = pod.spec;
    if (nodeName === undefined || pod.metadata.deletionTimestamp !== undefined) continue;
    const message = isReady(pod) ? undefined : troubleOf(pod)?.slice(0, 1000);
    states.set(nodeName, { name: nodeName, ready: isReady(pod), ...(message === undefined ? {} : { message }) });
  }
  return [...states.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
}

function verdictOf(rollout: Rollout, nodes: readonly NodeState[], removing: boolean): Verdict {
  const { desired } = rollout;
  const counted = `${nodes.filter((node) => node.ready).length} of ${desired} nodes`;
  const troubled = nodes.filter(({ message }) => message !== undefined);
  const found = troubled.slice(0, 5).map(({ name, message }) => `node ${name}: ${message}`);
  if (removing) {
    return progressing('RemovingFromNodes', [`${counted} have removed the image`, ...found].join('; '));
  }
  if (!rollout.current) return progressing('Placing', 'the image is being placed on nodes');
  if (desired === 0) return degraded('NoNodes', 'no node has the runtime; label nodes, or change the nodeSelector');
  if (isComplete(rollout)) return ready(`${desired} nodes have the image`);
  if (found.length > 0) return degraded('NotPlaced', [`${counted} have the image`, ...found].join('; '));
  return progressing('Placing', `${counted} have the image`);
}
