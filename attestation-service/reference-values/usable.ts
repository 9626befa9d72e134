import type { JsonValue } from '@sealpod/protocol/json';
import type { PolicyRecord } from '../policy/record.ts';
import type { Snapshot } from '../snapshot.ts';
import type { StoredReferenceValue } from './record.ts';
import { isExpired, referenceValueKey } from './record.ts';

/** How appraisals see reference values. */
export interface UsabilityRules {
  /** The policy without its class, e.g. `default`: the scope whose values come first. */
  readonly policyId: string;
  readonly acceptUnsigned: boolean;
  readonly now: Date;
}

/** What is stored under an id for a policy: that of its own scope, even if expired, else that of every policy. */
export function findReferenceValue(
  { referenceValues }: Pick<Snapshot, 'referenceValues'>,
  id: string,
  scope: string | undefined,
): StoredReferenceValue | undefined {
  return referenceValues.get(referenceValueKey(id, scope)) ?? referenceValues.get(id);
}

/** Why a stored value may not be used; undefined where it may. */
export function unusable(
  stored: StoredReferenceValue,
  { acceptUnsigned, now }: Pick<UsabilityRules, 'acceptUnsigned' | 'now'>,
): 'RV_EXPIRED' | 'RV_UNSIGNED' | undefined {
  if (isExpired(stored, now)) return 'RV_EXPIRED';
  return stored.provenance?.kind === 'unsigned' && !acceptUnsigned ? 'RV_UNSIGNED' : undefined;
}

/**
 * What `query_reference_value` answers, by id. Values that may not be used do not exist for a policy. Where a policy names
 * all its ids as text, only those are looked up: what else is registered costs an appraisal nothing.
 */
export function usableReferenceValues(
  policy: PolicyRecord,
  snapshot: Snapshot,
  rules: UsabilityRules,
): Record<string, JsonValue> {
  const ids = namedIds(policy) ?? [...snapshot.referenceValues.values()].map(({ id }) => id);
  const values: Record<string, JsonValue> = {};
  for (const id of ids) {
    const stored = findReferenceValue(snapshot, id, rules.policyId);
    if (stored !== undefined && unusable(stored, rules) === undefined) values[id] = stored.value;
  }
  return values;
}

const named = new Map<string, readonly string[] | undefined>();
const policiesKept = 128;

/** The ids of a policy whose every call has a literal argument; undefined where one is computed. */
function namedIds({ policy = '', sha256 }: PolicyRecord): readonly string[] | undefined {
  if (named.has(sha256)) return named.get(sha256);
  const mentions = policy.match(/query_reference_value/g)?.length ?? 0;
  const literal = [...policy.matchAll(/query_reference_value\s*\(\s*"([^"\\\n]*)"\s*\)/g)];
  const ids = literal.length === mentions ? [...new Set(literal.map(([, id = '']) => id))] : undefined;
  if (named.size >= policiesKept) named.clear();
  named.set(sha256, ids);
  return ids;
}
