import type { CoreV1Api, NodeV1Api } from '@kubernetes/client-node';
import { SealpodError } from '@sealpod/protocol/errors';
import type { PodLookup } from './services.ts';

/** Asks the API server what runs a pod. */
export function podLookup(
  core: Pick<CoreV1Api, 'readNamespacedPod'>,
  node: Pick<NodeV1Api, 'readRuntimeClass'>,
): PodLookup {
  return {
    async handlerOf({ namespace, name, uid }) {
      const pod = await core.readNamespacedPod({ namespace, name });
      if (pod.metadata?.uid !== uid) {
        throw new SealpodError('NOT_FOUND', `pod ${namespace}/${name} is another one meanwhile`, {
          expected: uid,
          actual: pod.metadata?.uid ?? 'none',
        });
      }
      const runtimeClass = pod.spec?.runtimeClassName;
      if (runtimeClass === undefined) return undefined;
      return (await node.readRuntimeClass({ name: runtimeClass })).handler;
    },
  };
}
