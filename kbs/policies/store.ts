import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { jsonOf, type Operations } from '@sealpod/storage';
import { defaultPolicy, defaultPolicyId } from './default-policy.ts';

const namespace = 'kbs/resource-policy';

export interface ResourcePolicy {
  readonly id: string;
  /** Rego v1 text. */
  readonly policy: string;
  /** SHA-256 of the text, hex. */
  readonly sha256: string;
  /** RFC 3339; absent for the built-in text. */
  readonly updatedAt?: string;
}

/** Largest policy, in bytes. */
export const largestPolicy = 256 * 1024;

const builtIn: ResourcePolicy = {
  id: defaultPolicyId,
  policy: defaultPolicy,
  sha256: createHash('sha256').update(defaultPolicy).digest('hex'),
};

/** Throws `REQUEST_FORMAT` for an id that is no plain name. */
export function checkPolicyId(id: string): void {
  if (/^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$/.test(id)) return;
  throw new SealpodError('REQUEST_FORMAT', 'the policy id is not acceptable', {
    expected: 'letters, digits, `_`, and, not first, `.` and `-`; at most 128',
    actual: id.slice(0, 128),
  });
}

/** A policy by id; `resource-policy` always exists, with the built-in text where no other was stored. */
export async function findPolicy(operations: Operations, id: string): Promise<ResourcePolicy | undefined> {
  const entry = await operations.get(namespace, id);
  // Written by this file only, and the storage is this process's own.
  if (entry !== undefined) return jsonOf(entry) as ResourcePolicy;
  return id === defaultPolicyId ? builtIn : undefined;
}

/** Stores a policy that has been compiled before. */
export async function writePolicy(
  transaction: Operations,
  id: string,
  policy: string,
  now: number,
): Promise<ResourcePolicy> {
  checkPolicyId(id);
  const sha256 = createHash('sha256').update(policy).digest('hex');
  const stored = { id, policy, sha256, updatedAt: new Date(now).toISOString() };
  await transaction.put(namespace, id, JSON.stringify(stored));
  return stored;
}

/** Removes a policy; `resource-policy` falls back to its built-in text. False where there was none. */
export async function deletePolicy(transaction: Operations, id: string): Promise<boolean> {
  return transaction.delete(namespace, id);
}

export async function listPolicies(operations: Operations): Promise<ResourcePolicy[]> {
  const stored = (await operations.list(namespace)).map((entry) => jsonOf(entry) as ResourcePolicy);
  return stored.some((policy) => policy.id === defaultPolicyId) ? stored : [builtIn, ...stored];
}
