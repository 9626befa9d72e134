import { type EarStatus, statusOf } from '@sealpod/protocol/ear';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { teeClassOf, teeNames } from '@sealpod/protocol/rcar';
import { type RegoEngine, readPolicySource, unknownFunctions } from '@sealpod/rego';
import { claimsRule, extensions, extensionsRule, trustVector } from '../appraisal/appraise.ts';
import type { SeenClaims } from '../appraisal/recent-claims.ts';

/** What was found out about a policy that is in order. */
export interface PolicyCheck {
  /** Reference values that it asked for in the dry runs. */
  readonly referenceValueIds: readonly string[];
  /** What it said of evidence that was verified here lately. */
  readonly dryRuns: readonly {
    readonly tee: string;
    readonly correlationId: string;
    readonly status: EarStatus;
    readonly vector: Readonly<Record<string, number>>;
  }[];
}

/** What a policy is tried on. */
export interface DryRunMaterial {
  readonly seen?: readonly SeenClaims[];
  /** What `query_reference_value` answers. */
  readonly referenceValues?: Readonly<Record<string, JsonValue>>;
}

/** Most evidence that one check evaluates. */
const maxDryRuns = 16;

/**
 * Checks an attestation policy as an upload does: it compiles, is package `policy`, has the rule `trust_claims`, calls no
 * function that the engine lacks (none of them reaches network, files or environment), and answers what a token can carry:
 * for no claims, for empty claims of each TEE of its class, and for evidence seen lately.
 *
 * @param id `<policy>_<class>`; for another id all classes are tried
 * @throws SealpodError POLICY_INVALID naming the rule, POLICY_TIMEOUT
 */
export async function checkAttestationPolicy(
  rego: Pick<RegoEngine, 'check' | 'evaluate'>,
  { id, policy }: { readonly id: string; readonly policy: string },
  { seen = [], referenceValues = {} }: DryRunMaterial = {},
): Promise<PolicyCheck> {
  await rego.check(policy);
  await checkPolicySource(rego, policy, 'trust_claims');
  const referenceValueIds = new Set<string>();
  const appraise = async (what: string, input: JsonObject) => {
    try {
      const answer = await rego.evaluate({
        policy,
        rules: [claimsRule, extensionsRule],
        input,
        data: {},
        functions: { query_reference_value: referenceValues },
      });
      for (const name of answer.referenceValueIds) referenceValueIds.add(name);
      extensions(answer.values[extensionsRule], [], id);
      return trustVector(answer.values[claimsRule], id);
    } catch (thrown) {
      const error = asSealpodError(thrown);
      throw new SealpodError(error.code, `${error.message} (dry run: ${what})`, { ...error.detail, cause: thrown });
    }
  };
  await appraise('no claims', {});
  const ofClass = (teeClass: string): boolean =>
    id.endsWith(`_${teeClass}`) || !classes.some((one) => id.endsWith(`_${one}`));
  for (const tee of teeNames.filter((name) => ofClass(teeClassOf(name))))
    await appraise(`empty claims of ${tee}`, { [tee]: {} });
  const dryRuns = [];
  for (const { tee, teeClass, correlationId, input } of seen.slice(0, maxDryRuns)) {
    if (!ofClass(teeClass)) continue;
    const vector = await appraise(`${tee} evidence of ${correlationId}`, input);
    dryRuns.push({ tee, correlationId, status: statusOf(vector), vector: { ...vector } });
  }
  return { referenceValueIds: [...referenceValueIds], dryRuns };
}

const classes = [...new Set(teeNames.map(teeClassOf)), 'switch', 'ppcie'];

/**
 * Checks what the text of a policy tells.
 *
 * @param rule the rule it must have
 * @throws SealpodError POLICY_INVALID
 */
export async function checkPolicySource(
  rego: Pick<RegoEngine, 'evaluate'>,
  policy: string,
  rule: string,
): Promise<void> {
  const { packageName, rules } = readPolicySource(policy);
  if (packageName !== 'policy') {
    throw new SealpodError('POLICY_INVALID', 'the policy is of another package', {
      expected: 'package policy',
      actual: packageName === undefined ? 'none' : `package ${packageName}`,
    });
  }
  if (!rules.includes(rule)) {
    throw new SealpodError('POLICY_INVALID', `the policy has no rule ${rule}`, {
      expected: rule,
      actual: rules.join(', ').slice(0, 200) || 'no rule',
    });
  }
  const unknown = await unknownFunctions(rego, policy);
  if (unknown.length > 0) {
    throw new SealpodError('POLICY_INVALID', `the policy calls ${unknown.join(', ')}, which policies cannot`, {
      expected: 'functions of the engine: no network, no environment, no files, no clock but time.now_ns',
      actual: unknown.join(', '),
    });
  }
}
