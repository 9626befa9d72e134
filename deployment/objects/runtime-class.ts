import type { Node } from '../template/nodes.ts';
import { partOf } from './common.ts';

/** Name of the runtime in containerd's configuration, of its handler, and of the RuntimeClass. */
export const runtimeClassName = 'sealpod';
/** RuntimeClass whose machines are in a cloud. */
export const peerRuntimeClassName = 'sealpod-peer';

/** What of a RuntimeClass the operator may choose. */
export interface RuntimeClassOptions {
  readonly name: string;
  readonly overheadCpu: Node;
  readonly overheadMemory: Node;
  readonly nodeSelector: Node;
  readonly tolerations?: Node;
}

/**
 * A RuntimeClass of the runtime. Its overhead is what a pod costs the node beside its machine: shim and adaptor. What
 * the machine itself takes is asked of the provider.
 */
export function runtimeClass({ name, overheadCpu, overheadMemory, nodeSelector, tolerations }: RuntimeClassOptions) {
  return {
    apiVersion: 'node.k8s.io/v1',
    kind: 'RuntimeClass',
    metadata: { name, labels: partOf },
    handler: runtimeClassName,
    overhead: { podFixed: { memory: overheadMemory, cpu: overheadCpu } },
    scheduling: { nodeSelector, ...(tolerations === undefined ? {} : { tolerations }) },
  };
}
