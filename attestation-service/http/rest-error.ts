import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import { failures } from '@sealpod/protocol/verdict';
import { AttestationRefused } from '../service.ts';

/** A request that cannot be read: status 400 and upstream's text, without the place where it stopped. */
export class UnreadableRequest extends SealpodError {
  constructor(problem: string) {
    super('REQUEST_FORMAT', `Json deserialize error: ${problem}`);
  }
}

/** What upstream was doing when something failed: the first line of its chain of causes. */
export class FailedStep extends SealpodError {
  readonly causes: readonly string[];

  constructor(step: string, causes: readonly string[] = [], code: ReasonCode = 'REQUEST_FORMAT') {
    super(code, step);
    this.causes = causes;
  }
}

/** An answer to a request that failed. */
export interface FailureAnswer {
  readonly status: number;
  readonly body: string;
  readonly code: ReasonCode;
}

/**
 * Upstream's form of a failure: status 500 whatever was wrong, `An internal error occured: \n0: …\n1: …`. Our reason code
 * stands in the chain. What was expected and found is told to administrators only.
 *
 * @param step what was being done, as upstream names it
 */
export function failureAnswer(thrown: unknown, step: string, administrator: boolean): FailureAnswer {
  if (thrown instanceof UnreadableRequest) return { status: 400, body: thrown.message, code: thrown.code };
  if (thrown instanceof FailedStep) return chain([thrown.message, ...thrown.causes], thrown.code);
  const error = asSealpodError(thrown);
  if (error.code === 'ADMIN_TOKEN') return { status: 401, body: `${error.code}: ${error.message}`, code: error.code };
  if (error instanceof AttestationRefused) {
    const found = administrator ? failures(error.verdict).map(describe) : [error.message];
    const refusal = `Verifier evaluate failed: ${error.code}\n\nCaused by:\n    ${found.join('\n    ')}`;
    return chain([step, refusal], error.code);
  }
  return chain([step, `${error.code}: ${error.message}`], error.code);
}

function chain(lines: readonly string[], code: ReasonCode): FailureAnswer {
  const body = `An internal error occured: ${lines.map((line, index) => `\n${index}: ${line}`).join('')}`;
  return { status: 500, body, code };
}

function describe(failure: ReturnType<typeof failures>[number]): string {
  const { check, code, expected, actual } = failure;
  return `${check}: ${code}${expected === undefined ? '' : `, expected ${expected}`}${actual === undefined ? '' : `, actual ${actual}`}`;
}
