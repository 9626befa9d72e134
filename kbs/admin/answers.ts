import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { fixOf, type ReasonCode } from '@sealpod/protocol/reason-codes';
import type { Answer } from '../server/exchange.ts';

const statuses: Partial<Record<ReasonCode, number>> = {
  ADMIN_TOKEN: 401,
  ADMIN_ROLE: 403,
  NOT_FOUND: 404,
  RES_NOT_FOUND: 404,
  STORAGE_CONFLICT: 409,
  RV_QUARANTINED: 409,
  RV_SUPERSEDED: 409,
  RV_EXPIRED: 400,
  RV_SIGNATURE: 400,
  RV_UNSIGNED: 400,
  REQUEST_TOO_LARGE: 413,
  REQUEST_FORMAT: 400,
  RES_NAME: 400,
  POLICY_INVALID: 400,
  POLICY_TIMEOUT: 400,
  POLICY_UNSET: 400,
  UNSUPPORTED: 400,
  USAGE: 400,
};

export function jsonAnswer(correlationId: string, value: unknown, status = 200): Answer {
  return { status, correlationId, contentType: 'application/json', body: JSON.stringify(value), route: 'admin' };
}

/** What an administrator is told of a failure: everything where they were let in, the code where they were not. */
export function failureAnswer(thrown: unknown, correlationId: string): Answer {
  const failure = asSealpodError(thrown);
  const status = statuses[failure.code] ?? 500;
  const known = status !== 401 && status !== 403;
  const { expected, actual, source } = failure.detail;
  const detail = failure instanceof SealpodError && status < 500 ? failure.message : 'the request failed, see the log';
  const value = {
    type: `urn:sealpod:error:${failure.code}`,
    detail,
    code: failure.code,
    'correlation-id': correlationId,
    ...(known ? { expected, actual, source, fix: fixOf(failure) } : {}),
  };
  const answer = jsonAnswer(correlationId, value, status);
  const headers = status === 401 ? { 'www-authenticate': 'Bearer' } : undefined;
  return headers === undefined ? { ...answer, code: failure.code } : { ...answer, code: failure.code, headers };
}
