import type { KubernetesObject } from '../kubernetes/objects.ts';

/** A DaemonSet, as far as its progress is told. */
export interface DaemonSet extends KubernetesObject {
  readonly status?: {
    readonly observedGeneration?: number;
    readonly desiredNumberScheduled?: number;
    readonly updatedNumberScheduled?: number;
    readonly numberReady?: number;
  };
}

/** How many nodes should have it, have it as specified, and have it ready. */
export interface Rollout {
  /** Whether the numbers are about the DaemonSet as it is specified now. */
  readonly current: boolean;
  readonly desired: number;
  readonly updated: number;
  readonly ready: number;
}

export function rolloutOf(daemonSet: DaemonSet | undefined): Rollout {
  const { status = {}, metadata } = daemonSet ?? {};
  return {
    current: status.observedGeneration !== undefined && status.observedGeneration === metadata?.generation,
    desired: status.desiredNumberScheduled ?? 0,
    updated: status.updatedNumberScheduled ?? 0,
    ready: status.numberReady ?? 0,
  };
}

export const isComplete = ({ current, desired, updated, ready }: Rollout): boolean =>
  current && updated >= desired && ready >= desired;
