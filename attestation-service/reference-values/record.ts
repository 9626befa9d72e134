import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import { type Entry, jsonOf } from '@sealpod/storage';
import type { AdministratorIdentity, Provenance } from './provenance.ts';

export const referenceValueNamespace = 'reference-value';

export interface StoredReferenceValue {
  readonly id: string;
  readonly value: JsonValue;
  readonly version: number;
  /** RFC 3339. */
  readonly updatedAt: string;
  /** RFC 3339; from then on the value is not used and its absence explained as expired. */
  readonly expiresAt?: string;
  /** The policy it is for, without the class, e.g. `default`; absent: for every policy that has none of its own. */
  readonly scope?: string;
  /** Why it is believed; absent where the service does not say. */
  readonly provenance?: Provenance;
}

/** What goes with a write of reference values. */
export interface ReferenceValueOptions {
  /** RFC 3339. */
  readonly expiresAt?: string;
  /** Policy id without the class. */
  readonly scope?: string;
  /** The authenticated administrator who asks for it; recorded as the value's provenance. */
  readonly administrator?: AdministratorIdentity;
}

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
