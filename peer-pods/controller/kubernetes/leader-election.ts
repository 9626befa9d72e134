import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../adaptor/log.ts';
import { isStatus, type ObjectClient } from './client.ts';
import type { KubernetesObject, OwnerReference } from './objects.ts';

interface Lease extends KubernetesObject {
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

export interface LeaderElectionOptions {
  readonly namespace: string;
  readonly name: string;
  /** Name of this process; no two are the same. */
  readonly identity: string;
  readonly leaseSeconds?: number;
  /** What makes the Lease go with the installation. */
  readonly owner?: () => Promise<OwnerReference | undefined>;
  readonly log: Log;
}

/**
 * Of several processes, one at a time leads: whoever holds a Lease that it renews. The clocks of the processes need not
 * agree: a Lease is old when it has not changed for its time, as seen from here.
 */
export class LeaderElection {
  readonly #client: ObjectClient;
  readonly #options: LeaderElectionOptions & { readonly leaseSeconds: number };
  #seen: { readonly version: string | undefined; readonly at: number } | undefined;

  constructor(client: ObjectClient, options: LeaderElectionOptions) {
    this.#client = client;
    this.#options = { leaseSeconds: 15, ...options };
  }

  /**
   * Waits until this process leads, calls `lead`, and renews the Lease meanwhile. The signal that `lead` gets aborts when
   * the Lease is lost or `signal` aborts; in the end the Lease is given back.
   */
  async run(signal: AbortSignal, lead: (leading: AbortSignal) => Promise<void>): Promise<void> {
    const { leaseSeconds, log, identity } = this.#options;
    while (!signal.aborted) {
      if (!(await this.#try())) {
        await sleep((leaseSeconds / 5) * 1000, signal);
        continue;
      }
      log.info({ identity }, 'leading');
      const lost = new AbortController();
      const leading = AbortSignal.any([signal, lost.signal]);
      const renewing = this.#renew(leading, lost);
      try {
        await lead(leading);
      } finally {
        lost.abort();
        await renewing;
        await this.#release();
      }
      log.info({ identity }, 'leading no more');
    }
  }

  async #renew(leading: AbortSignal, lost: AbortController): Promise<void> {
    const { leaseSeconds, log } = this.#options;
    let renewed = Date.now();
    while (!leading.aborted) {
      await sleep((leaseSeconds / 5) * 1000, leading);
      if (leading.aborted) return;
      if (await this.#try()) renewed = Date.now();
      else if (Date.now() - renewed > leaseSeconds * 660) {
        log.warn({}, 'the Lease could not be renewed');
        lost.abort();
      }
    }
  }

  /** Takes or renews the Lease where that is allowed. */
  async #try(): Promise<boolean> {
    const { identity, leaseSeconds, log } = this.#options;
    try {
      const lease = await this.#client.get<Lease>(this.#reference());
      const now = new Date().toISOString().replace('Z', '000Z');
      if (lease === undefined) {
        const owner = await this.#options.owner?.();
        const spec = { holderIdentity: identity, leaseDurationSeconds: leaseSeconds, acquireTime: now, renewTime: now };
        const { apiVersion, kind, name, namespace } = this.#reference();
        const metadata = { name, namespace, ...(owner === undefined ? {} : { ownerReferences: [owner] }) };
        await this.#client.create({ apiVersion, kind, metadata, spec });
        return true;
      }
      const { spec = {} } = lease;
      const mine = spec.holderIdentity === identity;
      if (!mine && !this.#isOld(lease)) return false;
      const taken = mine ? {} : { acquireTime: now, leaseTransitions: (spec.leaseTransitions ?? 0) + 1 };
      const next = { ...spec, ...taken, holderIdentity: identity, leaseDurationSeconds: leaseSeconds, renewTime: now };
      await this.#client.replace({ ...lease, spec: next });
      return true;
    } catch (thrown) {
      // Somebody else was faster.
      if (isStatus(thrown, 409)) return false;
      log.warn({ cause: String(thrown) }, 'the Lease could not be read or written');
      return false;
    }
  }

  #isOld({ metadata, spec = {} }: Lease): boolean {
    if (spec.holderIdentity === undefined || spec.holderIdentity === '') return true;
    const { resourceVersion } = metadata;
    if (this.#seen === undefined || this.#seen.version !== resourceVersion) {
      this.#seen = { version: resourceVersion, at: performance.now() };
      return false;
    }
    return performance.now() - this.#seen.at > (spec.leaseDurationSeconds ?? this.#options.leaseSeconds) * 1000;
  }

  async #release(): Promise<void> {
    try {
      const lease = await this.#client.get<Lease>(this.#reference());
      if (lease?.spec?.holderIdentity !== this.#options.identity) return;
      const { holderIdentity: _holder, ...spec } = lease.spec;
      await this.#client.replace({ ...lease, spec });
    } catch (thrown) {
      // It runs out by itself.
      this.#options.log.warn({ cause: String(thrown) }, 'the Lease could not be given back');
    }
  }

  #reference() {
    const { namespace, name } = this.#options;
    return { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace, name };
  }
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch((thrown: unknown) => {
    if (!signal.aborted) throw thrown;
  });
}
