import { asSealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { RegoEngine } from '@sealpod/rego';
import type { ResourcePolicy } from './store.ts';

/** What a policy is asked: upstream's contract (trustee, resource policy): `input` and `data`. */
export interface PolicyQuestion {
  /** The verified token's payload. */
  readonly input: JsonObject;
  readonly data: {
    readonly plugin: string;
    readonly 'resource-path': readonly string[];
    readonly query: Readonly<Record<string, string>>;
  };
}

const rule = 'data.policy.allow';

function notAffirming(input: JsonObject): Verdict[] {
  const submods = input['submods'];
  if (typeof submods !== 'object' || submods === null || Array.isArray(submods)) return [];
  return Object.entries(submods as JsonObject).flatMap(([name, appraisal]) => {
    const status =
      typeof appraisal === 'object' && appraisal !== null ? (appraisal as JsonObject)['ear.status'] : undefined;
    if (status === 'affirming') return [];
    return [
      {
        check: `submodule ${name}`,
        code: 'POLICY_DENY',
        expected: 'affirming',
        actual: String(status),
        source: 'attestation token',
      },
    ];
  });
}

/**
 * Asks a resource policy. Allowed only where its rule is exactly `true`: undefined, another type, a policy that fails or
 * runs out of time, and an unset policy all refuse.
 */
export async function askPolicy(
  rego: Pick<RegoEngine, 'evaluate'>,
  id: string,
  policy: ResourcePolicy | undefined,
  question: PolicyQuestion,
): Promise<Verdict> {
  const check = 'resource policy';
  if (policy === undefined) {
    return { check, code: 'POLICY_UNSET', expected: `a policy ${id}`, actual: 'none', source: id };
  }
  const source = `policy ${id} sha256:${policy.sha256}`;
  let value: unknown;
  try {
    const { values } = await rego.evaluate({ policy: policy.policy, rules: [rule], ...question });
    value = values[rule];
  } catch (thrown) {
    const failure = asSealpodError(thrown);
    const codes: readonly ReasonCode[] = ['POLICY_INVALID', 'POLICY_TIMEOUT', 'REQUEST_TOO_LARGE'];
    const code = codes.includes(failure.code) ? failure.code : 'INTERNAL';
    return { check, code, expected: `${rule} is true`, actual: failure.message, source };
  }
  if (value === true) return { check, code: 'OK', source };
  const actual = value === undefined ? 'undefined' : `${JSON.stringify(value)}`.slice(0, 256);
  return {
    check,
    code: 'POLICY_DENY',
    expected: `${rule} is true`,
    actual,
    source,
    children: notAffirming(question.input),
  };
}
