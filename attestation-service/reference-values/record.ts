import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import { type Entry, jsonOf } from '@sealpod/storage';
import type { StoredReferenceValue } from '../service.ts';

export const referenceValueNamespace = 'reference-value';

/** @throws SealpodError STORAGE */
export function parseStoredReferenceValue(entry: Entry): StoredReferenceValue {
  const record = jsonOf(entry) as Partial<StoredReferenceValue>;
  const { value, version, updatedAt, expiresAt } = record;
  if (value === undefined || typeof version !== 'number' || typeof updatedAt !== 'string') {
    throw new SealpodError('STORAGE', `the stored reference value ${entry.key} is damaged`);
  }
  return {
    id: entry.key,
    value: value as JsonValue,
    version,
    updatedAt,
    ...(typeof expiresAt === 'string' ? { expiresAt } : {}),
  };
}

/** Whether a value may be used at `now`. */
export function isExpired({ expiresAt }: StoredReferenceValue, now: Date): boolean {
  return expiresAt !== undefined && Date.parse(expiresAt) <= now.getTime();
}
