import { setTimeout as delay } from 'node:timers/promises';
import { CoreV1Api, type KubeConfig } from '@kubernetes/client-node';
import { patchCapacity } from '../node-status.ts';
import type { EventLog } from './publish.ts';

export interface CapacityOptions {
  /** May patch `nodes/status`. */
  readonly kubeConfig: KubeConfig;
  readonly nodeName: string;
  /** Extended resource of which each pod of the runtime class takes one, e.g. `sealpod.io/vm`. */
  readonly resource: string;
  readonly count: number;
  readonly signal: AbortSignal;
  readonly log: EventLog;
  readonly intervalMs?: number;
}

/**
 * Says in the node's status how many pod VMs it can hold, until the signal comes: the scheduler leaves pods beyond that
 * Pending. Said again at intervals, because a kubelet that registers its node anew sets such resources to zero.
 */
export async function advertiseCapacity(options: CapacityOptions): Promise<void> {
  const { kubeConfig, nodeName, resource, count, signal, log, intervalMs = 30_000 } = options;
  const api = kubeConfig.makeApiClient(CoreV1Api);
  let said = false;
  while (!signal.aborted) {
    try {
      await patchCapacity(api, nodeName, resource, count);
      if (!said) log.info({ resource, count }, 'capacity advertised');
      said = true;
    } catch (error) {
      log.warn({ resource, reason: String(error).slice(0, 300) }, 'the capacity of the node cannot be advertised');
      said = false;
    }
    await delay(said ? intervalMs : Math.min(intervalMs, 2000), undefined, { signal }).catch(() => undefined);
  }
}
