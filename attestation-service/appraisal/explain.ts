import { tierOf } from '@sealpod/protocol/ear';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { Verdict } from '@sealpod/protocol/verdict';
import { isExpired } from '../reference-values/record.ts';
import type { Snapshot } from '../snapshot.ts';
import { allOf, check } from '../verifiers/check.ts';
import { componentReferenceValues } from '../verifiers/tpm/claims.ts';
import type { PolicyOutcome } from './appraise.ts';

/**
 * Why a submodule has the status it has. Where it is affirming there is nothing to explain. Else first each measured
 * component or requested reference value that does not fit, then the policy's own answer.
 */
export function explainAppraisal(
  submodule: string,
  claims: JsonObject,
  outcome: PolicyOutcome,
  snapshot: Snapshot,
  now: Date,
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
  const known = (id: string): Verdict | undefined => usable(id, snapshot, now);
  const reasons = isObject(claims['components'])
    ? tpmReasons(claims, claims['components'], outcome, known, snapshot)
    : outcome.referenceValueIds.flatMap((id) => known(id) ?? []);
  return allOf(submodule, [...reasons, answer]);
}

/** Undefined where the reference value exists and may be used. */
function usable(id: string, { referenceValues }: Snapshot, now: Date): Verdict | undefined {
  const stored = referenceValues.get(id);
  const source = `reference value ${id}`;
  if (stored === undefined)
    return { check: id, code: 'RV_NOT_LOADED', expected: 'a registered value', actual: 'none', source };
  if (isExpired(stored, now)) {
    return {
      check: id,
      code: 'RV_EXPIRED',
      expected: `used before ${stored.expiresAt}`,
      actual: now.toISOString(),
      source,
    };
  }
  return undefined;
}

/** A policy is explained by the reference values that it names; what it does not name, it does not hold against anything. */
function tpmReasons(
  claims: JsonObject,
  components: JsonObject,
  { policy, appraisal }: PolicyOutcome,
  known: (id: string) => Verdict | undefined,
  snapshot: Snapshot,
): Verdict[] {
  const text = policy.policy ?? '';
  const reasons = Object.entries(componentReferenceValues).flatMap(([component, id]) => {
    if (!text.includes(`"${id}"`)) return [];
    const name = component.replaceAll('_', ' ');
    const actual = typeof components[component] === 'string' ? components[component] : 'not measured';
    const missing = known(id);
    if (missing !== undefined) return [{ ...missing, check: name, actual }];
    const value = snapshot.referenceValues.get(id)?.value ?? null;
    const accepted = acceptedValues(value);
    return accepted.includes(actual)
      ? []
      : [
          check(name, false, 'RV_MISMATCH', {
            expected: accepted.join(' or ') || 'an empty list',
            actual,
            source: `reference value ${id}`,
          }),
        ];
  });
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
        actual: String(claims['debug_switches']),
        source: 'measured command line and initdata',
      }),
    );
  }
  if (claims['simulated'] === true && !hardwareAffirmed && !/\.simulated\s*==\s*true/.test(text)) {
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

function acceptedValues(value: JsonValue): string[] {
  return Array.isArray(value) ? value.map(String) : [String(value)];
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
