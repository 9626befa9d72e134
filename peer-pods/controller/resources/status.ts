import { isDeepStrictEqual } from 'node:util';
import { KubernetesRefusal } from '../kubernetes/client.ts';
import { conditionsOf, degraded, type Verdict } from '../kubernetes/conditions.ts';
import { type KubernetesObject, referenceTo } from '../kubernetes/objects.ts';
import type { Parts } from '../parts.ts';

/** Writes verdict and members into the status of an object, where anything of it changes. */
export async function writeStatus(
  { client, now }: Pick<Parts, 'client' | 'now'>,
  object: KubernetesObject,
  verdict: Verdict,
  members: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const { generation } = object.metadata;
  const status = {
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    conditions: conditionsOf(verdict, object, now()),
    ...members,
  };
  const before = (object['status'] ?? {}) as Readonly<Record<string, unknown>>;
  const changed = Object.entries(status).some(([name, value]) => !isDeepStrictEqual(before[name], value));
  if (changed) await client.merge(referenceTo(object), { status }, '/status');
}

/** What the API server says against an object that was to be made, as a verdict; anything else is thrown on. */
export function refusedVerdict(thrown: unknown, what: string): Verdict {
  if (!(thrown instanceof KubernetesRefusal)) throw thrown;
  // Tried again at once, it may well be accepted.
  if (thrown.status === 409 || thrown.status === 429 || thrown.status >= 500) throw thrown;
  const fix =
    thrown.status === 403
      ? 'check the roles of the ServiceAccount sealpod-controller, quotas and admission policies'
      : 'correct the specification';
  return degraded('ApplyFailed', `${what} was refused: ${thrown.message}; ${fix}`);
}
