import { SealpodError } from '../errors.ts';
import type { ReasonCode } from '../reason-codes.ts';

/** Status codes of ttrpc: those of gRPC. */
export const Status = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const;

/** A call that failed: the status code and the message as they stand on the wire. */
export class TtrpcError extends Error {
  override readonly name = 'TtrpcError';
  readonly status: number;

  constructor(status: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

/** Reason codes whose status is not `internal`. */
const statusOfReason: Partial<Record<ReasonCode, number>> = {
  POLICY_UNSET: Status.permissionDenied,
  POLICY_DENY: Status.permissionDenied,
  AGENT_POLICY_DENY: Status.permissionDenied,
  IMG_POLICY_DENY: Status.permissionDenied,
  RES_FORBIDDEN: Status.permissionDenied,
  ADMIN_ROLE: Status.permissionDenied,
  RES_NOT_FOUND: Status.notFound,
  NOT_FOUND: Status.notFound,
  RES_NAME: Status.invalidArgument,
  REQUEST_FORMAT: Status.invalidArgument,
  INITDATA_SCHEMA: Status.invalidArgument,
  USAGE: Status.invalidArgument,
  REQUEST_TOO_LARGE: Status.resourceExhausted,
  RATE_LIMIT: Status.resourceExhausted,
  UNSUPPORTED: Status.unimplemented,
  AGENT_UNREACHABLE: Status.unavailable,
  VM_ENDED: Status.unavailable,
  KBS_UNREACHABLE: Status.unavailable,
};

/**
 * What a thrown value becomes on the wire: a TtrpcError keeps its status, a SealpodError gets the status of its code and
 * the message `CODE: text`, anything else is `internal`.
 */
export function toTtrpcError(thrown: unknown): TtrpcError {
  if (thrown instanceof TtrpcError) return thrown;
  if (thrown instanceof SealpodError) {
    const status = statusOfReason[thrown.code] ?? Status.internal;
    return new TtrpcError(status, `${thrown.code}: ${thrown.message}`, { cause: thrown });
  }
  return new TtrpcError(Status.internal, thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown });
}

/** The error of every call on a connection that is gone; containerd compares this text. */
export function closedError(cause?: unknown): TtrpcError {
  return new TtrpcError(Status.unavailable, 'ttrpc: closed', cause === undefined ? undefined : { cause });
}
