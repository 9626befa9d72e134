import { readFileSync } from 'node:fs';
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import { SealpodError } from '@sealpod/protocol/errors';
import type { NodeAgentConfig } from './config.ts';
import { mergePatch, patchCapacity } from './node-status.ts';

/** What a node says of itself to the scheduler. */
export interface NodeState {
  readonly label: string | undefined;
  readonly capacity: string | undefined;
}

/** This node in the API server: a label, and how many machines it can hold. Nothing else of it is touched. */
export class KubernetesNode {
  readonly #api: CoreV1Api;
  readonly #name: string;
  readonly #label: string;
  readonly #resource: string;
  readonly #count: number;

  constructor({ kubeConfig, name }: ThisNode, config: Pick<NodeAgentConfig, 'nodeLabel' | 'capacity'>) {
    this.#api = kubeConfig.makeApiClient(CoreV1Api);
    this.#name = name;
    this.#label = config.nodeLabel;
    this.#resource = config.capacity.resource;
    this.#count = config.capacity.count;
  }

  /**
   * Makes label and capacity what they should be. Both are looked at each time: a kubelet that registers its node anew
   * sets such resources to zero.
   *
   * @param serving whether pods of the runtime class can run here
   * @throws SealpodError PREREQUISITE where the API server does not answer or refuses
   */
  async publish(serving: boolean): Promise<void> {
    const state = await this.#read();
    if (state.label !== (serving ? 'true' : undefined)) await this.#setLabel(serving);
    if (serving && state.capacity !== String(this.#count)) await this.#setCapacity(this.#count);
  }

  /** Removes label and capacity. @throws SealpodError PREREQUISITE */
  async withdraw(): Promise<void> {
    const state = await this.#read();
    if (state.label !== undefined) await this.#setLabel(false);
    if (state.capacity !== undefined) await this.#setCapacity(null);
  }

  async #read(): Promise<NodeState> {
    const { metadata, status } = await this.#call('get', this.#api.readNode({ name: this.#name }));
    return { label: metadata?.labels?.[this.#label], capacity: status?.capacity?.[this.#resource] };
  }

  async #setLabel(serving: boolean): Promise<void> {
    const body = { metadata: { labels: { [this.#label]: serving ? 'true' : null } } };
    await this.#call('patch', this.#api.patchNode({ name: this.#name, body }, mergePatch));
  }

  async #setCapacity(count: number | null): Promise<void> {
    await this.#call('patch the status of', patchCapacity(this.#api, this.#name, this.#resource, count));
  }

  async #call<T>(verb: string, answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (cause) {
      throw new SealpodError('PREREQUISITE', `the node agent cannot ${verb} node ${this.#name}`, {
        cause,
        actual: (cause instanceof Error ? cause.message : String(cause))
          .split('\n')
          .slice(0, 3)
          .join(' ')
          .slice(0, 500),
        fix: 'the API server has to be reachable, and the ServiceAccount to be allowed get and patch of nodes, and patch of nodes/status',
      });
    }
  }
}

/** A node's name, and how its API server is spoken to. */
export interface ThisNode {
  readonly name: string;
  readonly kubeConfig: KubeConfig;
}

/**
 * The node of the pod that runs this process: its ServiceAccount, and NODE_NAME of the downward API. With `kubeconfig`
 * (a file) from outside a pod.
 *
 * @throws SealpodError USAGE where neither is there
 */
export function thisNode(environment: NodeJS.ProcessEnv, kubeconfig?: string): ThisNode {
  const name = environment['NODE_NAME'];
  if (name === undefined || name === '') {
    throw new SealpodError('USAGE', 'NODE_NAME is not set', {
      expected: 'the name of the node, from the downward API (spec.nodeName)',
    });
  }
  const kubeConfig = new KubeConfig();
  if (kubeconfig !== undefined) kubeConfig.loadFromString(readFileSync(kubeconfig, 'utf8'));
  else if (environment['KUBERNETES_SERVICE_HOST'] === undefined) {
    throw new SealpodError('USAGE', 'this process runs in no pod', { fix: 'name a kubeconfig with --kubeconfig' });
  } else kubeConfig.loadFromCluster();
  return { name, kubeConfig };
}
