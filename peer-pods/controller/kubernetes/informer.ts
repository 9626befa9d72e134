import { type KubernetesObject as LibraryObject, type ListPromise, ListWatch, Watch } from '@kubernetes/client-node';
import type { Log } from '../../adaptor/log.ts';
import type { KubernetesClient } from './client.ts';
import { collectionPath, type KubernetesObject } from './objects.ts';

/** Milliseconds before a watch that failed is begun again; doubled up to the most. */
const firstRetryMs = 500;
const mostRetryMs = 15_000;

/** Which objects to watch. */
export interface Watched {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string;
  readonly labels?: string;
}

/**
 * Calls `changed` with every object that is there, appears, changes or goes, until `signal` aborts. A watch that the API
 * server ends or refuses, e.g. while the resource is not defined yet, is begun again.
 */
export function watchObjects(
  client: KubernetesClient,
  watched: Watched,
  changed: (object: KubernetesObject) => void,
  { signal, log }: { readonly signal: AbortSignal; readonly log: Log },
): void {
  const { apiVersion, kind, namespace, labels } = watched;
  const path = collectionPath(apiVersion, kind, namespace);
  const options = {
    ...(namespace === undefined ? {} : { namespace }),
    ...(labels === undefined ? {} : { labels }),
  };
  // The library says that times are dates; of what is listed and watched here they are texts, as they were sent.
  const list: unknown = () => client.list<KubernetesObject>(apiVersion, kind, options);
  const watch = new Watch(client.config);
  const informer = new ListWatch(path, watch, list as ListPromise<LibraryObject>, false, labels);
  const callback = (object: unknown): void => changed({ ...(object as KubernetesObject), apiVersion, kind });
  for (const event of ['add', 'update', 'delete'] as const) informer.on(event, callback);
  let delay = firstRetryMs;
  let timer: NodeJS.Timeout | undefined;
  informer.on('connect', () => {
    delay = firstRetryMs;
  });
  const begin = (): void => {
    timer = undefined;
    informer.start().catch(again);
  };
  const again = (cause: unknown): void => {
    if (signal.aborted || timer !== undefined) return;
    log.warn({ kind, namespace, cause: String(cause), delayMs: delay }, 'a watch failed, and is begun again');
    timer = setTimeout(begin, delay);
    delay = Math.min(delay * 2, mostRetryMs);
  };
  informer.on('error', again);
  signal.addEventListener('abort', () => {
    clearTimeout(timer);
    void informer.stop();
  });
  begin();
}
