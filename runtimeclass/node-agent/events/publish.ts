import { setTimeout as delay } from 'node:timers/promises';
import {
  ApiException,
  EventsV1Api,
  type EventsV1Event,
  type KubeConfig,
  PatchStrategy,
  setHeaderOptions,
  V1MicroTime,
} from '@kubernetes/client-node';
import { asSealpodError } from '@sealpod/protocol/errors';
import type { SandboxStatus } from '@sealpod/protocol/status';
import { detailAnnotation, eventName, type PodEvent, podEvents, reportingController } from './pod-event.ts';
import { RateLimit } from './rate-limit.ts';
import { readSandboxes } from './status-client.ts';

/** Structured lines, as pino writes them. */
export interface EventLog {
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
}

export interface PublishOptions {
  /** Status socket of the node's adaptor. */
  readonly statusSocket: string;
  /** May create and patch `events` of `events.k8s.io` in all namespaces with pods, and needs nothing else. */
  readonly kubeConfig: KubeConfig;
  readonly nodeName: string;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly log: EventLog;
  /** Milliseconds between two looks at the adaptor. */
  readonly intervalMs?: number;
}

const ofOnePod = { burst: 30, perSecond: 0.2 };
const ofAllPods = { burst: 100, perSecond: 10 };
/** What happened longer ago is not told by a publisher that was not there: the API server would have forgotten it. */
const newsMs = 3_600_000;
/** A count is told again after so long at the earliest, unless it has doubled. */
const betweenCountsMs = 60_000;

interface Published {
  readonly count: number;
  readonly at: number;
}

/**
 * Publishes on each pod of this node with a VM an event for each stage of its start and for its refusals, until the
 * signal comes. What happens again is counted in the series of the first event. Resolves when it has ended; an API server
 * or an adaptor that does not answer is told in the log and asked again.
 */
export async function publishPodEvents(options: PublishOptions): Promise<void> {
  const { statusSocket, signal, log, intervalMs = 1000 } = options;
  const publisher = new Publisher(options);
  let silent = false;
  while (!signal.aborted) {
    try {
      await publisher.publish(await readSandboxes(statusSocket));
      if (silent) log.info({}, 'the adaptor answers again');
      silent = false;
    } catch (error) {
      const { code } = asSealpodError(error);
      const reason = [...causes(error)].join(': ');
      if (!silent) log.warn({ code, reason }, 'no events of pods for now');
      silent = true;
    }
    await delay(intervalMs, undefined, { signal }).catch(() => undefined);
  }
}

class Publisher {
  readonly #options: PublishOptions;
  readonly #api: EventsV1Api;
  readonly #all = new RateLimit(ofAllPods, Date.now());
  /** By sandbox: what it may still publish, and what was published by name of the event. */
  readonly #pods = new Map<string, { readonly limit: RateLimit; readonly published: Map<string, Published> }>();

  constructor(options: PublishOptions) {
    this.#options = options;
    this.#api = options.kubeConfig.makeApiClient(EventsV1Api);
  }

  async publish(sandboxes: readonly SandboxStatus[]): Promise<void> {
    for (const id of this.#pods.keys()) if (!sandboxes.some(({ sandboxId }) => sandboxId === id)) this.#pods.delete(id);
    for (const sandbox of sandboxes) {
      const { pod, sandboxId } = sandbox;
      // A sandbox that no kubelet asked for.
      if (pod.uid === '' || pod.namespace === '') continue;
      const now = Date.now();
      const known = this.#pods.get(sandboxId) ?? { limit: new RateLimit(ofOnePod, now), published: new Map() };
      this.#pods.set(sandboxId, known);
      for (const event of podEvents(sandbox, now)) {
        const name = eventName(sandbox, event);
        const before = known.published.get(name);
        if (!isNews(event, before, now)) continue;
        // What is held back now is still there at the next look.
        if (!known.limit.take(now) || !this.#all.take(now)) break;
        await this.#tell(sandbox, event, name, before);
        known.published.set(name, { count: event.count, at: now });
      }
    }
  }

  async #tell(sandbox: SandboxStatus, event: PodEvent, name: string, before: Published | undefined): Promise<void> {
    const { namespace } = sandbox.pod;
    try {
      if (before === undefined && (await this.#create(sandbox, event, name)) && event.count === 1) return;
      if (event.count > 1) await this.#count(namespace, event, name);
    } catch (error) {
      if (!(error instanceof ApiException) || error.code === 429 || error.code >= 500) throw error;
      // The namespace goes, the pod's name is no name, or it is not allowed: asking again would not help.
      const { pod, sandboxId } = sandbox;
      const fields = { sandbox: sandboxId, ...pod, reason: event.reason, status: error.code };
      this.#options.log.warn({ ...fields, answer: String(error.body).slice(0, 300) }, 'an event was refused');
    }
  }

  /** False where it is there already, published by an earlier process. */
  async #create(sandbox: SandboxStatus, event: PodEvent, name: string): Promise<boolean> {
    try {
      const { namespace } = sandbox.pod;
      await this.#api.createNamespacedEvent({ namespace, body: this.#object(sandbox, event, name) });
      return true;
    } catch (error) {
      if (error instanceof ApiException && error.code === 409) return false;
      throw error;
    }
  }

  #count(namespace: string, event: PodEvent, name: string): Promise<EventsV1Event> {
    const lastObservedTime = microTime(event.times.at(-1) ?? Date.now());
    const body = {
      metadata: { annotations: { [detailAnnotation]: JSON.stringify(event.detail) } },
      series: { count: event.count, lastObservedTime },
    };
    const patch = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);
    return this.#api.patchNamespacedEvent({ namespace, name, body }, patch);
  }

  #object({ pod }: SandboxStatus, event: PodEvent, name: string): EventsV1Event {
    const { namespace, uid } = pod;
    return {
      metadata: { name, namespace, annotations: { [detailAnnotation]: JSON.stringify(event.detail) } },
      eventTime: microTime(event.times[0] ?? Date.now()),
      regarding: { apiVersion: 'v1', kind: 'Pod', namespace, name: pod.name, uid },
      type: event.type,
      reason: event.reason,
      action: event.action,
      note: event.note,
      reportingController,
      reportingInstance: this.#options.nodeName.slice(0, 128),
    };
  }
}

function isNews({ count, times }: PodEvent, before: Published | undefined, now: number): boolean {
  if (before === undefined) return now - (times.at(-1) ?? 0) < newsMs;
  return count > before.count && (count >= 2 * before.count || now - before.at >= betweenCountsMs);
}

/** The message of an error and of what caused it: `fetch failed` alone says little. */
function* causes(thrown: unknown): Generator<string> {
  for (let error = thrown; error instanceof Error; error = error.cause) yield error.message;
}

function microTime(milliseconds: number): V1MicroTime {
  return new V1MicroTime(milliseconds);
}
