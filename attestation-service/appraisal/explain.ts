import { tierOf } from '@sealpod/protocol/ear';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { Verdict } from '@sealpod/protocol/verdict';
import { elementsOf } from '../reference-values/candidate.ts';
import { fits, type MeasuredClaim, measuredClaims } from '../reference-values/measured.ts';
import { findReferenceValue, type UsabilityRules, unusable } from '../reference-values/usable.ts';
import type { Snapshot } from '../snapshot.ts';
import { allOf, check } from '../verifiers/check.ts';
import type { PolicyOutcome } from './appraise.ts';

/** What a submodule was appraised from. */
export interface AppraisedSubmodule {
  /** E.g. `cpu0`. */
  readonly submodule: string;
  readonly tee: string;
  readonly claims: JsonObject;
}

/**
 * Why a submodule has the status it has. Where it is affirming there is nothing to explain. Else first each measured
 * component or requested reference value that does not fit, then the policy's own answer.
 */
export function explainAppraisal(
  { submodule, tee, claims }: AppraisedSubmodule,
  outcome: PolicyOutcome,
  snapshot: Snapshot,
  rules: UsabilityRules,
): Verdict {
  const { appraisal, policy } = outcome;
  const status = appraisal['ear.status'];
  const vector = Object.entries(appraisal['ear.trustworthiness-vector']).map(
    ([name, value]) => `${name} ${value} (${tierOf(value)})`,
  );
  const answer = check(`policy ${policy.id}`, status === 'affirming', 'POLICY_DENY', {
    expected: 'affirming',
    actual: `${status}: ${vector.join(', ')}`,
    source: `policy ${policy.id} ${policy.sha256.slice(0, 12)}`,
  });
  if (status === 'affirming') return allOf(submodule, [answer]);
  return allOf(submodule, [
    ...referenceValueReasons(tee, claims, outcome, snapshot, rules),
    ...machineReasons(claims, outcome),
    answer,
  ]);
}

/**
 * A policy is explained by the reference values that it asked for, and of TPM evidence by all that its text names: it stops
 * asking at the first component that does not fit. What it does not name, it does not hold against anything.
 */
function referenceValueReasons(
  tee: string,
  claims: JsonObject,
  { policy, referenceValueIds }: PolicyOutcome,
  snapshot: Snapshot,
  rules: UsabilityRules,
): Verdict[] {
  const text = policy.policy ?? '';
  const measured = measuredClaims(tee);
  if (tee === 'tpm' && isObject(claims['components'])) {
    const named = measured.filter(({ id }) => text.includes(`"${id}"`));
    return named.flatMap((claim) => reasonOf(claim.id, claim, claims, snapshot, rules) ?? []);
  }
  return referenceValueIds.flatMap((id) => {
    const claim = measured.find((candidate) => candidate.id === id);
    return reasonOf(id, claim, claims, snapshot, rules) ?? [];
  });
}

/** Undefined where the reference value exists, may be used and accepts what was measured. */
function reasonOf(
  id: string,
  claim: MeasuredClaim | undefined,
  claims: JsonObject,
  snapshot: Snapshot,
  rules: UsabilityRules,
): Verdict | undefined {
  const stored = findReferenceValue(snapshot, id, rules.policyId);
  const measured = claim?.read(claims);
  // Only a component of its own has a name that tells more than the id.
  const name = claim !== undefined && id.startsWith('tpm_') ? claim.name : id;
  const actual = claim === undefined ? 'none' : measured === undefined ? 'not measured' : textOf(measured);
  const source = `reference value ${stored?.scope === undefined ? '' : `${stored.scope}:`}${id}`;
  const learned = measured === undefined ? undefined : learnedReason(id, measured, snapshot, rules);
  if (stored === undefined) {
    return { check: name, ...(learned ?? { code: 'RV_NOT_LOADED', expected: 'a registered value' }), actual, source };
  }
  const problem = unusable(stored, rules);
  if (problem === 'RV_EXPIRED') {
    const now = `expired at ${rules.now.toISOString()}`;
    const expected = `used before ${stored.expiresAt}`;
    return { check: name, code: problem, expected, actual: claim === undefined ? now : actual, source };
  }
  if (problem === 'RV_UNSIGNED')
    return {
      check: name,
      code: problem,
      expected: 'a signature or an administrator',
      actual: 'nobody stands for it',
      source,
    };
  if (claim === undefined) return undefined;
  if (measured !== undefined && fits(claim, measured, stored.value)) return undefined;
  const expected = elementsOf(stored.value).map(textOf).join(' or ') || 'an empty list';
  return { check: name, ...(learned ?? { code: 'RV_MISMATCH' }), expected, actual, source };
}

/** Where what was measured is known, but not in use. */
function learnedReason(
  id: string,
  measured: JsonValue,
  { candidates }: Snapshot,
  { policyId }: UsabilityRules,
): Pick<Verdict, 'code' | 'expected' | 'fix'> | undefined {
  const holding = [...candidates.values()].filter(
    ({ values, scope }) =>
      (scope === undefined || scope === policyId) &&
      values[id] !== undefined &&
      fits({ relation: 'in' }, measured, values[id]),
  );
  const waiting = holding.find(({ state }) => state === 'quarantined' || state === 'approved');
  if (waiting !== undefined) {
    const fix = `sealpod refvalue diff ${waiting.id}, then approve and promote it`;
    return { code: 'RV_QUARANTINED', expected: `candidate ${waiting.id} promoted`, fix };
  }
  const retired = holding.find(({ state }) => state === 'retired');
  return retired === undefined
    ? undefined
    : { code: 'RV_RETIRED', expected: `not what candidate ${retired.id} held, retired at ${retired.retired?.at}` };
}

/** What the claims say of the machine itself. */
function machineReasons(claims: JsonObject, { policy, appraisal }: PolicyOutcome): Verdict[] {
  const reasons: Verdict[] = [];
  if (claims['ak_trust'] === 'self-asserted') {
    reasons.push(
      check('attestation key', false, 'EV_AK_UNTRUSTED', {
        expected: 'a proof by credential activation, or an enrolled key',
        actual: 'a key that vouches for itself',
        source: 'reference value trusted_aks',
      }),
    );
  }
  const hardware = appraisal['ear.trustworthiness-vector'].hardware;
  const hardwareAffirmed = hardware !== undefined && tierOf(hardware) === 'affirming';
  if (claims['debug'] === true) {
    reasons.push(
      check('debug switches', false, 'EV_DEBUG_ON', {
        expected: 'none',
        actual: String(claims['debug_switches'] ?? 'on'),
        source: 'measured command line and initdata',
      }),
    );
  }
  if (claims['simulated'] === true && !hardwareAffirmed && !/\.simulated\s*==\s*true/.test(policy.policy ?? '')) {
    reasons.push(
      check('hardware', false, 'EV_SIMULATED', {
        expected: 'a TPM that is not simulated',
        actual: `simulated, under root ${claims['ek_root']}`,
        source: 'enrolled roots',
      }),
    );
  }
  return reasons;
}

function textOf(value: JsonValue): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
