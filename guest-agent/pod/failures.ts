import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';

/** The process, exec or container is not there: the shim takes it as "already gone". */
export function notFound(message: string): TtrpcError {
  return new TtrpcError(Status.notFound, message);
}

export function invalidArgument(message: string): TtrpcError {
  return new TtrpcError(Status.invalidArgument, message);
}

export function alreadyExists(message: string): TtrpcError {
  return new TtrpcError(Status.alreadyExists, message);
}

export function failedPrecondition(message: string): TtrpcError {
  return new TtrpcError(Status.failedPrecondition, message);
}

export function outOfRange(message: string): TtrpcError {
  return new TtrpcError(Status.outOfRange, message);
}
