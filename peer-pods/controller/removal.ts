import { removalAnnotation, removalPatch } from '@sealpod/deployment';
import type { JsonObject } from '@sealpod/protocol/json';
import type { KubernetesObject, ObjectReference } from './kubernetes/objects.ts';
import type { Parts } from './parts.ts';
import { troubles } from './resources/pods.ts';
import { type DaemonSet, isComplete, rolloutOf } from './resources/workloads.ts';

/** How far a removal has come. */
export interface Removal {
  readonly done: boolean;
  readonly message: string;
}

/**
 * Has the DaemonSet of the node agent take the runtime off its nodes, and says how far that is. Call it until it is done:
 * then every node has removed what was placed on it. Without a DaemonSet there is nothing to remove.
 */
export async function removeFromNodes(
  parts: Pick<Parts, 'client'>,
  reference: ObjectReference & { readonly namespace: string },
): Promise<Removal> {
  const { client } = parts;
  let daemonSet = await client.get<DaemonSet & KubernetesObject>(reference);
  if (daemonSet === undefined) return { done: true, message: 'no node has it' };
  if (daemonSet.metadata.annotations?.[removalAnnotation] === undefined) {
    daemonSet = (await client.strategicMerge(reference, removalPatch(daemonSet as unknown as JsonObject))) as DaemonSet;
  }
  const rollout = rolloutOf(daemonSet);
  if (isComplete(rollout)) return { done: true, message: `removed from ${rollout.desired} nodes` };
  const labels = (daemonSet['spec'] as { selector: { matchLabels: Record<string, string> } }).selector.matchLabels;
  const selector = Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(',');
  const found = await troubles(parts, reference.namespace, selector);
  const removed = rollout.current ? Math.min(rollout.ready, rollout.updated) : 0;
  const trouble = found.length === 0 ? '' : `; ${found.slice(0, 5).join('; ')}`;
  return { done: false, message: `${removed} of ${rollout.desired} nodes have removed it${trouble}` };
}
