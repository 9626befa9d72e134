import type { JsonValue } from '@sealpod/protocol/json';

/** What a policy's answer depends on beside reference values: paths below `input`, and nothing else. */
export type PolicyReads = readonly (readonly string[])[];

/** Builtins whose answer changes from one evaluation to the next. */
const changing = /\b(?:time|rand|uuid|opa|http|net)\s*\./;
const mention = /\binput\b/g;
/** `input.a["b"].c`, or `object.get(input, ["a", "b"], …)`. */
const path =
  /\binput((?:\.[A-Za-z_]\w*|\["[^"\\\n]*"\])+)|\bobject\.get\(\s*input\s*,\s*\[(\s*"[^"\\\n]*"(?:\s*,\s*"[^"\\\n]*")*)\s*\]/g;
const name = /"([^"]*)"|([A-Za-z_]\w*)/g;

const commentsAndStrings = /`[^`]*`|"(?:[^"\\\n]|\\.)*"|#[^\n]*/g;

/**
 * Which parts of `input` a Rego policy can read at all, told from its text: every mention of `input` must be followed by
 * names, or be that of `object.get` with a literal path, and stands for everything below them. Strings count as code, which only makes the answer larger.
 *
 * @returns undefined where that cannot be told, or where the answer depends on the time or on chance
 */
export function policyReads(text: string): PolicyReads | undefined {
  const policy = text.replaceAll(commentsAndStrings, (found) => (found.startsWith('#') ? '' : found));
  if (changing.test(policy)) return undefined;
  const told = [...policy.matchAll(path)];
  if (told.length !== (policy.match(mention)?.length ?? 0)) return undefined;
  const paths = new Set(told.map(([, reference, argument = '']) => JSON.stringify(namesOf(reference ?? argument))));
  return [...paths].sort().map((names) => JSON.parse(names) as string[]);
}

function namesOf(reference: string): string[] {
  return [...reference.matchAll(name)].map(([, quoted, plain = '']) => quoted ?? plain);
}

/** What stands in an input at these paths, as text: two inputs with the same text are the same to the policy. */
export function readsOf(reads: PolicyReads, input: JsonValue): string {
  return JSON.stringify(reads.map((names) => valueAt(input, names)));
}

/** In an array, so that null and nothing differ. */
function valueAt(input: JsonValue, names: readonly string[]): readonly [] | readonly [JsonValue] {
  let value: JsonValue = input;
  for (const name of names) {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, name)) return [];
    const member: JsonValue | undefined = (value as Readonly<Record<string, JsonValue>>)[name];
    if (member === undefined) return [];
    value = member;
  }
  return [value];
}
