import { asSealpodError } from '@sealpod/protocol/errors';
import type { RegoEngine } from './engine.ts';

/** What can be told of a policy's text without evaluating it. */
export interface PolicySource {
  /** E.g. `policy`; undefined where the text has no package clause. */
  readonly packageName: string | undefined;
  /** Names of rules and functions, in order of first appearance. */
  readonly rules: readonly string[];
  /** Names of functions that are called, with their dots, those of the policy itself included. */
  readonly calls: readonly string[];
}

/** Words that may stand before a parenthesis and are no function. */
const keywords = new Set(['if', 'in', 'not', 'every', 'some', 'else', 'with', 'as', 'contains', 'default', 'import']);

/**
 * Reads a policy's text. It is no parser: the text must have been compiled before, so that a name before a parenthesis is
 * a call and one at the beginning of a line is a rule.
 */
export function readPolicySource(policy: string): PolicySource {
  const text = withoutCommentsAndStrings(policy);
  const heads = [...text.matchAll(/^(?:default\s+)?([A-Za-z_]\w*)(?=[\s([:={.])/gm)].map(([, name = '']) => name);
  const calls = [...text.matchAll(/(?<![\w.])([A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*)\s*\(/g)].map(([, name = '']) =>
    name.replaceAll(/\s/g, ''),
  );
  return {
    packageName: /^\s*package\s+([\w.[\]"]+)/m.exec(text)?.[1],
    rules: [...new Set(heads.filter((name) => !['package', 'import', ...keywords].includes(name)))],
    calls: [...new Set(calls.filter((name) => !keywords.has(name)))],
  };
}

/** Strings become `""`, so that what stands in them is never taken for code; line breaks stay. */
function withoutCommentsAndStrings(policy: string): string {
  return policy.replaceAll(/`[^`]*`|"(?:[^"\\\n]|\\.)*"|#[^\n]*/g, (found) => (found.startsWith('#') ? '' : '""'));
}

/** Functions that hosts supply, beside those of the engine. */
const hostFunctions = ['query_reference_value'];
/** Whether the engine has a function: asked once. */
const known = new Map<string, boolean>();

/**
 * Functions that a policy calls and neither it nor the engine has, e.g. `http.send`. The engine itself tells only when the
 * rule that calls one is evaluated, which may be never before it matters.
 *
 * @throws SealpodError POLICY_INVALID, POLICY_TIMEOUT where the policy is not usable at all
 */
export async function unknownFunctions(engine: Pick<RegoEngine, 'evaluate'>, policy: string): Promise<string[]> {
  const { calls, rules, packageName = '' } = readPolicySource(policy);
  const own = new Set(rules.flatMap((name) => [name, `data.${packageName}.${name}`]));
  const unknown: string[] = [];
  for (const name of calls.filter((call) => !own.has(call) && !hostFunctions.includes(call))) {
    const has = known.get(name) ?? (await hasFunction(engine, name));
    if (known.size < 1000) known.set(name, has);
    if (!has) unknown.push(name);
  }
  return unknown;
}

async function hasFunction(engine: Pick<RegoEngine, 'evaluate'>, name: string): Promise<boolean> {
  try {
    await engine.evaluate({ policy: `package policy\nx := ${name}()\n`, rules: ['data.policy.x'], input: {} });
    return true;
  } catch (thrown) {
    // A known function complains of the number of its arguments.
    return !asSealpodError(thrown).message.includes('could not find function');
  }
}
