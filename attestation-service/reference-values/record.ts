import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import { type Entry, jsonOf } from '@sealpod/storage';
import type { StoredReferenceValue } from '../service.ts';
import type { Provenance } from './provenance.ts';

export const referenceValueNamespace = 'reference-value';

/** Where a value is kept: `id`, or `scope:id`. Neither holds a colon. */
export function referenceValueKey(id: string, scope: string | undefined): string {
  return scope === undefined ? id : `${scope}:${id}`;
}

/** @throws SealpodError STORAGE */
export function parseStoredReferenceValue(entry: Entry): StoredReferenceValue {
  const record = jsonOf(entry) as Partial<StoredReferenceValue>;
  const { value, version, updatedAt, expiresAt, provenance } = record;
  if (value === undefined || typeof version !== 'number' || typeof updatedAt !== 'string') {
    throw new SealpodError('STORAGE', `the stored reference value ${entry.key} is damaged`);
  }
  const colon = entry.key.indexOf(':');
  return {
    id: entry.key.slice(colon + 1),
    value: value as JsonValue,
    version,
    updatedAt,
    ...(typeof expiresAt === 'string' ? { expiresAt } : {}),
    ...(colon < 0 ? {} : { scope: entry.key.slice(0, colon) }),
    provenance: provenance ?? unrecorded,
  };
}

/** Values of releases that kept no provenance: only administrators could register those. */
const unrecorded: Provenance = { kind: 'administrator', subject: 'not recorded' };

/** Whether a value may be used at `now`. */
export function isExpired({ expiresAt }: Pick<StoredReferenceValue, 'expiresAt'>, now: Date): boolean {
  return expiresAt !== undefined && Date.parse(expiresAt) <= now.getTime();
}
