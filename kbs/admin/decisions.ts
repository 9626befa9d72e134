import type { Operations } from '@sealpod/storage';
import { decide } from '../audit/log.ts';
import type { Decision } from '../audit/record.ts';
import type { Parts } from '../parts.ts';
import type { Administrator } from './authenticator.ts';

/** Who does what to what, for the record. */
export interface AdminDeed {
  readonly correlationId: string;
  readonly administrator: Administrator;
  /** E.g. `PUT resource`. */
  readonly action: string;
  /** The object, e.g. a resource path or a policy id. */
  readonly target: string;
  readonly remoteAddress: string;
  readonly details?: Partial<Decision>;
}

function decisionOf(
  parts: Parts,
  deed: AdminDeed,
  outcome: Decision['outcome'],
  details: Partial<Decision> = {},
): Decision {
  const { correlationId, administrator, action, target, remoteAddress } = deed;
  const subject = { administrator: administrator.subject, role: administrator.role, remoteAddress };
  const time = new Date(parts.now()).toISOString();
  return { correlationId, time, kind: 'admin', action, outcome, subject, target, ...deed.details, ...details };
}

/** A write to this key broker's own storage: recorded in the same transaction. */
export function writeRecorded<Result>(
  parts: Parts,
  deed: AdminDeed,
  write: (transaction: Operations) => Promise<Result>,
  details: (result: Result) => Partial<Decision> = () => ({}),
): Promise<Result> {
  return decide(parts.storage, async (transaction) => {
    const result = await write(transaction);
    return { decision: decisionOf(parts, deed, 'OK', details(result)), result };
  });
}

/**
 * A write to the attestation service, which has a storage of its own: the intent is on record before it is tried, the
 * success after it. An intent without success is one that failed or whose end is not known.
 */
export async function forwardRecorded<Result>(
  parts: Parts,
  deed: AdminDeed,
  forward: () => Promise<Result>,
  details: (result: Result) => Partial<Decision> = () => ({}),
): Promise<Result> {
  await decide(parts.storage, async () => ({ decision: decisionOf(parts, deed, 'INTENT'), result: undefined }));
  const result = await forward();
  await decide(parts.storage, async () => ({
    decision: decisionOf(parts, deed, 'OK', details(result)),
    result: undefined,
  }));
  return result;
}
