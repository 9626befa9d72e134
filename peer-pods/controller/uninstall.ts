import { setTimeout as delay } from 'node:timers/promises';
import { nodeAgentName } from '@sealpod/deployment';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Log } from '../adaptor/log.ts';
import { isStatus, type KubernetesClient } from './kubernetes/client.ts';
import { type KubernetesObject, referenceTo } from './kubernetes/objects.ts';
import { removeFromNodes } from './removal.ts';

export interface UninstallOptions {
  readonly timeoutMs: number;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Takes the runtime off all nodes, before whatever made it is deleted: a SealpodRuntime is deleted, which has its controller do
 * it; the DaemonSet of a chart is told to.
 *
 * @throws SealpodError PREREQUISITE where a node has not done so in time, naming those nodes
 */
export async function uninstall(client: KubernetesClient, namespace: string, options: UninstallOptions): Promise<void> {
  const { timeoutMs, log, signal } = options;
  const deadline = Date.now() + timeoutMs;
  const agent = { apiVersion: 'apps/v1', kind: 'DaemonSet', namespace, name: nodeAgentName };
  let last = '';
  while (!signal.aborted) {
    const runtimes = await listRuntimes(client);
    for (const runtime of runtimes) {
      if (runtime.metadata.deletionTimestamp === undefined) await client.delete(referenceTo(runtime));
    }
    const { done, message } =
      runtimes.length === 0
        ? await removeFromNodes({ client }, agent)
        : { done: false, message: messageOf(runtimes) || 'the SealpodRuntime is being deleted' };
    if (message !== last) log.info({ done }, message);
    last = message;
    if (done) return;
    if (Date.now() > deadline) {
      throw new SealpodError('PREREQUISITE', 'the runtime could not be removed from all nodes', {
        expected: `done within ${timeoutMs / 1000} s`,
        actual: last,
        fix: 'bring those nodes back, or delete the release with --no-hooks: they then keep what was placed on them',
      });
    }
    await delay(1000);
  }
}

async function listRuntimes(client: KubernetesClient): Promise<readonly KubernetesObject[]> {
  try {
    return (await client.list('sealpod.io/v1alpha1', 'SealpodRuntime')).items;
  } catch (thrown) {
    // The resource is not defined here: only the chart can have made the runtime.
    if (isStatus(thrown, 404)) return [];
    throw thrown;
  }
}

function messageOf(runtimes: readonly KubernetesObject[]): string {
  const { conditions = [] } = (runtimes[0]?.['status'] ?? {}) as { conditions?: { type: string; message: string }[] };
  return conditions.find(({ type }) => type === 'Progressing')?.message ?? '';
}
