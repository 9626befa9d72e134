import { hash } from 'node:crypto';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { RegoResult } from '@sealpod/rego';
import type { PolicyRecord } from '../policy/record.ts';
import { type PolicyReads, policyReads, readsOf } from './policy-reads.ts';

type Answer = Pick<RegoResult, 'values' | 'referenceValueIds'>;
type ReferenceValues = Readonly<Record<string, JsonValue>>;

const answersKept = 1024;
const policiesKept = 128;
/** An answer that quotes much of its input is cheaper to make again than to keep. */
const longestAnswer = 16 * 1024;

/**
 * What policies answered, by the policy's text, by all that it can read of the claims, and by the reference values that it
 * may use. Evidence is verified in every request; only what a policy makes of claims that it has seen before is remembered,
 * and only of policies whose text tells what they read.
 */
export class RememberedAnswers {
  readonly #reads = new Map<string, PolicyReads | undefined>();
  readonly #answers = new Map<string, { readonly answer: Answer; readonly values: ReferenceValues }>();

  /** The answer to this, remembered or made by `evaluate`. What throws is not remembered. */
  async get(
    { policy = '', sha256 }: PolicyRecord,
    input: JsonObject,
    values: ReferenceValues,
    evaluate: () => Promise<Answer>,
  ): Promise<Answer> {
    const reads = this.#readsOf(policy, sha256);
    if (reads === undefined) return evaluate();
    const key = `${sha256}:${hash('sha256', readsOf(reads, input), 'base64')}`;
    const known = this.#answers.get(key);
    if (known !== undefined && sameValues(known.values, values)) return known.answer;
    const answer = await evaluate();
    this.#answers.delete(key);
    if (JSON.stringify(answer.values).length > longestAnswer) return answer;
    const [eldest] = this.#answers.keys();
    if (this.#answers.size >= answersKept && eldest !== undefined) this.#answers.delete(eldest);
    this.#answers.set(key, { answer, values });
    return answer;
  }

  #readsOf(policy: string, sha256: string): PolicyReads | undefined {
    if (this.#reads.has(sha256)) return this.#reads.get(sha256);
    if (this.#reads.size >= policiesKept) this.#reads.clear();
    const reads = policyReads(policy);
    this.#reads.set(sha256, reads);
    return reads;
  }
}

/** The same objects: any write of reference values makes new ones, and one that has expired is missing. */
function sameValues(one: ReferenceValues, other: ReferenceValues): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}
