import { podVmImageLabel } from '@sealpod/deployment';
import { asSealpodError } from '@sealpod/protocol/errors';
import type { KubernetesClient } from './kubernetes/client.ts';
import { type Watched, watchObjects } from './kubernetes/informer.ts';
import type { KubernetesObject } from './kubernetes/objects.ts';
import { type Outcome, WorkQueue } from './kubernetes/work-queue.ts';
import { ControllerMetrics } from './metrics.ts';
import type { Parts } from './parts.ts';
import { reconcilePodVmImage } from './resources/pod-vm-image.ts';
import { reconcileReferenceValues } from './resources/reference-values.ts';
import { reconcileRuntime } from './resources/sealpod-runtime.ts';
import { reconcileTrustService } from './resources/trust-service.ts';
import { reconcileWebhookCertificate } from './resources/webhook-certificate.ts';

const apiVersion = 'sealpod.io/v1alpha1';
/** The one piece of work that is no resource. */
const certificateKey = 'WebhookCertificate//';
/** One look that takes longer is stuck. */
const longestWorkMs = 300_000;

/** Keeps everything as the resources say, while it leads. */
export class Controller {
  readonly metrics: ControllerMetrics;
  readonly #parts: Parts & { readonly client: KubernetesClient };
  readonly #known = new Set<string>();
  #queue: WorkQueue | undefined;
  #workSince: number | undefined;

  constructor(parts: Parts & { readonly client: KubernetesClient }) {
    this.#parts = parts;
    this.metrics = new ControllerMetrics(() => this.#queue?.depth ?? 0);
  }

  /** False where one piece of work does not end. */
  isHealthy(): boolean {
    return this.#workSince === undefined || performance.now() - this.#workSince < longestWorkMs;
  }

  /** Watches and works until `signal` aborts; what was begun is ended first. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, config } = this.#parts;
    const queue = new WorkQueue({
      work: (key) => this.#work(key),
      failed: (key, thrown, delayMs) => {
        const error = asSealpodError(thrown);
        log.warn({ key, code: error.code, error: error.message, delayMs }, 'failed, and will be tried again');
      },
    });
    this.#queue = queue;
    this.metrics.leads(true);
    for (const watched of this.#watched()) {
      watchObjects(this.#parts.client, watched, (object) => this.#changed(queue, object), { signal, log });
    }
    const resync = (): void => {
      for (const key of [certificateKey, ...this.#known]) queue.add(key);
    };
    const timer = setInterval(resync, config.resyncSeconds * 1000);
    resync();
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    clearInterval(timer);
    await queue.stop();
    this.metrics.leads(false);
  }

  #watched(): Watched[] {
    const { namespaces, trustNamespaces } = this.#parts.config;
    const apps = 'apps/v1';
    return [
      { apiVersion, kind: 'SealpodRuntime' },
      { apiVersion, kind: 'PodVmImage' },
      { apiVersion: apps, kind: 'DaemonSet', namespace: namespaces.nodes },
      { apiVersion: apps, kind: 'Deployment', namespace: namespaces.system },
      ...[...new Set([namespaces.system, ...trustNamespaces])].flatMap((namespace) => [
        { apiVersion, kind: 'TrustService', namespace },
        { apiVersion, kind: 'ReferenceValues', namespace },
        { apiVersion: apps, kind: 'StatefulSet', namespace, labels: 'app.kubernetes.io/component=key-broker' },
      ]),
    ];
  }

  /** Finds out what a changed object is about. */
  #changed(queue: WorkQueue, { apiVersion: version, kind, metadata }: KubernetesObject): void {
    const { name, namespace = '', labels = {} } = metadata;
    const add = (key: string): void => {
      this.#known.add(key);
      queue.add(key);
    };
    if (version === apiVersion) {
      add(`${kind}/${namespace}/${name}`);
      // A TrustService that has become ready lets its values be registered.
      if (kind !== 'ReferenceValues') this.#again(queue, 'ReferenceValues');
      return;
    }
    const image = labels[podVmImageLabel];
    const service = labels['sealpod.io/trust-service'];
    if (image !== undefined) add(`PodVmImage//${image}`);
    else if (service !== undefined) add(`TrustService/${namespace}/${service}`);
    else {
      this.#again(queue, 'SealpodRuntime');
      if (kind === 'Deployment') queue.add(certificateKey);
    }
  }

  #again(queue: WorkQueue, kind: string): void {
    for (const key of this.#known) if (key.startsWith(`${kind}/`)) queue.add(key);
  }

  async #work(key: string): Promise<Outcome> {
    const [kind = '', namespace = '', name = ''] = key.split('/');
    const started = performance.now();
    this.#workSince = started;
    let result: 'done' | 'failed' = 'failed';
    try {
      const outcome = await this.#reconcile(kind, namespace, name);
      result = 'done';
      return outcome;
    } finally {
      this.#workSince = undefined;
      this.metrics.reconciled(kind, result, (performance.now() - started) / 1000);
    }
  }

  #reconcile(kind: string, namespace: string, name: string): Promise<Outcome> {
    switch (kind) {
      case 'SealpodRuntime':
        return reconcileRuntime(this.#parts, name);
      case 'TrustService':
        return reconcileTrustService(this.#parts, namespace, name);
      case 'PodVmImage':
        return reconcilePodVmImage(this.#parts, name);
      case 'ReferenceValues':
        return reconcileReferenceValues(this.#parts, namespace, name);
      default:
        return reconcileWebhookCertificate(this.#parts);
    }
  }
}
