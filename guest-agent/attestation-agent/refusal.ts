import { SealpodError } from '@sealpod/protocol/errors';
import { parseErrorInformation } from '@sealpod/protocol/rcar';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import { isCorrelationId } from '@sealpod/protocol/status';
import type { HttpAnswer } from './pinned-https.ts';

/** Reason codes for the error variants of an upstream broker, which sends no code of ours. */
const variants: Readonly<Record<string, ReasonCode>> = {
  AttestationError: 'EV_REFUSED',
  InvalidRequestPath: 'RES_NAME',
  JweError: 'REQUEST_FORMAT',
  PluginInternalError: 'RES_NOT_FOUND',
  PluginNotFound: 'RES_NOT_FOUND',
  PolicyDeny: 'POLICY_DENY',
  PolicyEngineError: 'POLICY_INVALID',
  TokenNotFound: 'TOKEN_MISSING',
  TokenVerifierError: 'TOKEN_INVALID',
};

/**
 * The error of an answer that is not 200: the broker's own code and correlation id where it says them, else the code of
 * upstream's error variant, else `fallback`.
 */
export function refusal(answer: HttpAnswer, fallback: ReasonCode, what: string): SealpodError {
  const correlation = correlationOf(answer);
  try {
    const { type, detail, code, correlationId = correlation } = parseErrorInformation(answer.body);
    const variant = type.slice(type.lastIndexOf('/') + 1);
    return new SealpodError(code ?? variants[variant] ?? fallback, `${what}: ${printable(detail)}`, {
      ...(correlationId === undefined ? {} : { correlationId }),
      actual: `HTTP ${answer.status} ${variant}`,
    });
  } catch (cause) {
    return new SealpodError(fallback, `${what} with HTTP status ${answer.status}`, {
      cause,
      ...(correlation === undefined ? {} : { correlationId: correlation }),
    });
  }
}

/** The id by which the broker has this answer on record; undefined where it says none. */
export function correlationOf(answer: HttpAnswer): string | undefined {
  const header = answer.headers['x-correlation-id'];
  return isCorrelationId(header) ? header : undefined;
}

/** One line of text, because it goes into logs and error messages. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 300);
}

/** `CODE: text (correlation <id>)`: how a failure is told across a process boundary. */
export function describeFailure(error: SealpodError): string {
  const { correlationId } = error.detail;
  return `${error.code}: ${error.message}${correlationId === undefined ? '' : ` (correlation ${correlationId})`}`;
}
