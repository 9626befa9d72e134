import { type CoreV1Api, PatchStrategy, setHeaderOptions, type V1Node } from '@kubernetes/client-node';

/** Options of calls whose body says only what changes (RFC 7386). */
export const mergePatch = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);

/**
 * Writes into a node's status how many of an extended resource it holds; null takes the resource away. Whoever calls may
 * patch `nodes/status`.
 */
export function patchCapacity(api: CoreV1Api, name: string, resource: string, count: number | null): Promise<V1Node> {
  const quantity = count === null ? null : String(count);
  const body = { status: { capacity: { [resource]: quantity }, allocatable: { [resource]: quantity } } };
  return api.patchNodeStatus({ name, body }, mergePatch);
}
