import type { ReasonCode } from './reason-codes.ts';

/** What an operator may see of a failure beyond its code. Values are text, as they should be printed. */
export interface FailureDetail {
  readonly expected?: string;
  readonly actual?: string;
  /** Where the expectation comes from: a file, a policy id, a reference value id, a specification section. */
  readonly source?: string;
  readonly fix?: string;
  readonly correlationId?: string;
}

/** The one error root: a stable `code`, a short lower-case message, and always the cause where there is one. */
export class SealpodError extends Error {
  override readonly name = 'SealpodError';
  readonly code: ReasonCode;
  readonly detail: FailureDetail;

  constructor(code: ReasonCode, message: string, detail: FailureDetail & { readonly cause?: unknown } = {}) {
    const { cause, ...rest } = detail;
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.detail = rest;
  }
}

/** Turns whatever was thrown into a SealpodError, keeping one that already is. */
export function asSealpodError(thrown: unknown, code: ReasonCode = 'INTERNAL'): SealpodError {
  if (thrown instanceof SealpodError) return thrown;
  return new SealpodError(code, thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown });
}
