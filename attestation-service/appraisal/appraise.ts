import { type Appraisal, isTrustClaim, statusOf, type TrustClaim, type TrustVector } from '@sealpod/protocol/ear';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import type { RegoEngine } from '@sealpod/rego';
import type { PolicyRecord } from '../policy/record.ts';
import { usableReferenceValues } from '../reference-values/usable.ts';
import type { Snapshot } from '../snapshot.ts';
import { RememberedAnswers } from './remembered-answers.ts';

/** Rules that an attestation policy answers with. */
export const claimsRule = 'data.policy.trust_claims';
export const extensionsRule = 'data.policy.extensions';

/** What a policy made of a piece of evidence. */
export interface PolicyOutcome {
  readonly appraisal: Appraisal;
  /** The policy that was evaluated. */
  readonly policy: PolicyRecord;
  /** Reference values it asked for. */
  readonly referenceValueIds: readonly string[];
}

/**
 * Evaluates policy `<policyId>_<teeClass>` over annotated evidence. Reference values that have expired or that nobody
 * stands for do not exist for it.
 *
 * @throws SealpodError POLICY_UNSET where there is no such policy, POLICY_INVALID where it answers what no EAR can carry,
 * POLICY_TIMEOUT
 */
export async function appraise(
  rego: RegoEngine,
  snapshot: Snapshot,
  {
    policyId,
    teeClass,
    evidence,
    now,
    acceptUnsigned = false,
    answers = new RememberedAnswers(),
  }: {
    readonly policyId: string;
    readonly teeClass: string;
    readonly evidence: JsonObject;
    readonly now: Date;
    readonly acceptUnsigned?: boolean;
    /** Answers of evaluations before this one. */
    readonly answers?: RememberedAnswers;
  },
): Promise<PolicyOutcome> {
  const id = `${policyId}_${teeClass}`;
  const record = snapshot.policies.get(id);
  if (record?.policy === undefined) {
    throw new SealpodError('POLICY_UNSET', `there is no attestation policy ${id}`, { source: `policy ${id}` });
  }
  const { policy } = record;
  const usable = usableReferenceValues(record, snapshot, { policyId, acceptUnsigned, now });
  const { values, referenceValueIds } = await answers.get(record, evidence, usable, () =>
    rego.evaluate({
      policy,
      rules: [claimsRule, extensionsRule],
      input: evidence,
      data: {},
      functions: { query_reference_value: usable },
    }),
  );
  const vector = trustVector(values[claimsRule], id);
  const appraisal: Appraisal = {
    'ear.status': statusOf(vector),
    'ear.trustworthiness-vector': vector,
    'ear.appraisal-policy-id': policyId,
    'ear.veraison.annotated-evidence': evidence,
  };
  return {
    appraisal: { ...appraisal, ...extensions(values[extensionsRule], Object.keys(appraisal), id) },
    policy: record,
    referenceValueIds,
  };
}

/**
 * Without the rule every claim is 0, "none": that never affirms. Order of members as upstream's tokens have it.
 *
 * @throws SealpodError POLICY_INVALID
 */
export function trustVector(value: unknown, policy: string): TrustVector {
  const claims = value === undefined ? {} : value;
  if (typeof claims !== 'object' || claims === null || Array.isArray(claims))
    throw invalid(policy, 'trust_claims is not an object');
  const entries = Object.entries(claims);
  if (value !== undefined && entries.length === 0) throw invalid(policy, 'trust_claims sets no claim');
  const vector: Partial<Record<TrustClaim, number>> = {};
  if (value === undefined) {
    for (const name of vectorOrder) vector[name] = 0;
    return vector;
  }
  for (const [name, claim] of entries) {
    if (!isTrustClaim(name)) throw invalid(policy, `unknown trust claim ${name}`);
    if (!Number.isInteger(claim) || claim < -128 || claim > 127)
      throw invalid(policy, `trust claim ${name} is not an integer of -128 to 127`);
  }
  for (const name of vectorOrder) {
    const claim = entries.find(([candidate]) => candidate === name)?.[1];
    if (claim !== undefined) vector[name] = claim;
  }
  return vector;
}

const vectorOrder: readonly TrustClaim[] = [
  'instance-identity',
  'configuration',
  'executables',
  'file-system',
  'hardware',
  'runtime-opaque',
  'storage-opaque',
  'sourced-data',
];

/** Members that a policy adds to the submodule. @throws SealpodError POLICY_INVALID */
export function extensions(value: unknown, taken: readonly string[], policy: string): Record<string, unknown> {
  if (value === undefined) return {};
  if (!Array.isArray(value)) throw invalid(policy, 'extensions is not an array');
  const members = new Map<string, unknown>();
  const keys = new Set<number>();
  for (const extension of value as unknown[]) {
    const { name, key, value: content } = (extension ?? {}) as { name?: unknown; key?: unknown; value?: unknown };
    if (typeof name !== 'string' || typeof key !== 'number' || !Number.isInteger(key) || content === undefined) {
      throw invalid(policy, 'an extension is not {name, key, value}');
    }
    if (taken.includes(name) || name === '__proto__' || members.has(name) || keys.has(key))
      throw invalid(policy, `extension ${name} clashes with another member`);
    members.set(name, content);
    keys.add(key);
  }
  return Object.fromEntries(members);
}

function invalid(policy: string, problem: string): SealpodError {
  return new SealpodError('POLICY_INVALID', `attestation policy ${policy}: ${problem}`, { source: `policy ${policy}` });
}
