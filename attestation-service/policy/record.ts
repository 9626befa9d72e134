import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Entry, jsonOf } from '@sealpod/storage';

export const policyNamespace = 'attestation-policy';

export interface StoredPolicy {
  readonly id: string;
  readonly policy: string;
  /** SHA-256 of the text, hex. */
  readonly sha256: string;
  /** RFC 3339. */
  readonly updatedAt: string;
}

/** A stored policy, or the mark that an operator deleted one, which keeps the built-in text from coming back. */
export interface PolicyRecord {
  readonly id: string;
  /** Undefined: deleted. */
  readonly policy?: string;
  readonly sha256: string;
  readonly updatedAt: string;
  /** Whether the text is the built-in one of some release, untouched. */
  readonly builtIn: boolean;
}

/** SHA-256 of a policy's text, hex. */
export function policyDigest(policy: string): string {
  return createHash('sha256').update(policy).digest('hex');
}

/** The record of a text. */
export function policyRecord(id: string, policy: string | undefined, builtIn: boolean, now: Date): PolicyRecord {
  return {
    id,
    ...(policy === undefined ? {} : { policy }),
    sha256: policyDigest(policy ?? ''),
    updatedAt: now.toISOString(),
    builtIn,
  };
}

/** @throws SealpodError STORAGE */
export function parseStoredPolicy(entry: Entry): PolicyRecord {
  const record = jsonOf(entry) as Partial<PolicyRecord>;
  const { policy, updatedAt, builtIn } = record;
  if (
    (policy !== undefined && typeof policy !== 'string') ||
    typeof updatedAt !== 'string' ||
    typeof builtIn !== 'boolean'
  ) {
    throw new SealpodError('STORAGE', `the stored policy ${entry.key} is damaged`);
  }
  return {
    id: entry.key,
    ...(policy === undefined ? {} : { policy }),
    sha256: policyDigest(policy ?? ''),
    updatedAt,
    builtIn,
  };
}

/** What callers see of a record; undefined where it is deleted. */
export function storedPolicy({ id, policy, sha256, updatedAt }: PolicyRecord): StoredPolicy | undefined {
  return policy === undefined ? undefined : { id, policy, sha256, updatedAt };
}
