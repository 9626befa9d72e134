import type { KubernetesObject } from './objects.ts';

/** A condition as it is stored. */
export interface Condition {
  readonly type: 'Ready' | 'Progressing' | 'Degraded';
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/** How something is. The reason is one word for programs; the message says what is wrong and what to do. */
export interface Verdict {
  readonly state: 'ready' | 'progressing' | 'degraded';
  readonly reason: string;
  readonly message: string;
}

export const ready = (message: string): Verdict => ({ state: 'ready', reason: 'Ready', message });
export const progressing = (reason: string, message: string): Verdict => ({ state: 'progressing', reason, message });
export const degraded = (reason: string, message: string): Verdict => ({ state: 'degraded', reason, message });

const longestMessage = 2000;

/**
 * The conditions of a verdict. All three bear its reason, so that whoever looks at one of them knows; the time of a
 * condition stays where its status does.
 */
export function conditionsOf(verdict: Verdict, object: KubernetesObject, now: Date): Condition[] {
  const { state, reason } = verdict;
  const message = verdict.message.slice(0, longestMessage);
  const { conditions = [] } = (object['status'] ?? {}) as { readonly conditions?: readonly Condition[] };
  const of = (type: Condition['type'], holds: boolean): Condition => {
    const status = holds ? 'True' : 'False';
    const before = conditions.find((condition) => condition.type === type);
    const lastTransitionTime = before?.status === status ? before.lastTransitionTime : now.toISOString();
    const { generation } = object.metadata;
    const observed = generation === undefined ? {} : { observedGeneration: generation };
    return { type, status, reason, message, lastTransitionTime, ...observed };
  };
  return [
    of('Ready', state === 'ready'),
    of('Progressing', state === 'progressing'),
    of('Degraded', state === 'degraded'),
  ];
}
