import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import type { Verdict } from '@sealpod/protocol/verdict';

/** What a failed check tells an operator. */
export interface Finding {
  readonly expected?: string;
  readonly actual?: string;
  readonly source?: string;
}

/** The verdict of one check: `OK`, or `code` with what was expected and found. */
export function check(name: string, holds: boolean, code: ReasonCode, finding: Finding = {}): Verdict {
  return holds ? { check: name, code: 'OK' } : { check: name, code, ...finding };
}

/** A verdict over others: the code of the first that failed. */
export function allOf(name: string, children: readonly Verdict[]): Verdict {
  return { check: name, code: children.find(({ code }) => code !== 'OK')?.code ?? 'OK', children };
}
