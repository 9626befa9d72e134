import { SealpodError } from '@sealpod/protocol/errors';
import { canonicalJson } from '@sealpod/protocol/json';
import { jsonOf, type Operations } from '@sealpod/storage';
import { checkId } from '../policy/policy-id.ts';
import type { AdministratorIdentity, AttributedValues, Provenance } from './provenance.ts';
import type { StoredReferenceValue } from './record.ts';
import { referenceValueKey, referenceValueNamespace } from './record.ts';

const maxValueBytes = 256 * 1024;
/** Date of issue of the newest signed statement under a key. Outlives the value, else deleting it would allow a rollback. */
const issuedNamespace = 'reference-value-issued';
/** Append-only: every change of reference values, in the transaction that makes it. */
export const referenceValueLog = 'reference-values';

/** One change of reference values, for the record. */
export interface ReferenceValueChange {
  readonly action: 'register' | 'delete' | 'learn' | 'approve' | 'promote' | 'retire';
  /** RFC 3339. */
  readonly at: string;
  readonly by?: AdministratorIdentity;
  readonly candidate?: string;
  readonly scope?: string;
  /** Id → version written, or 0 where it was deleted or only learned. */
  readonly versions: Readonly<Record<string, number>>;
  readonly provenance?: Provenance;
}

/** Appends to the record of changes. @throws SealpodError STORAGE */
export async function recordChange(transaction: Operations, change: ReferenceValueChange): Promise<void> {
  await transaction.append(referenceValueLog, canonicalJson(JSON.parse(JSON.stringify(change))), {
    ...(change.candidate === undefined ? {} : { key: change.candidate }),
  });
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function checkValues({ values, scope }: Pick<AttributedValues, 'values' | 'scope'>): void {
  if (scope !== undefined) checkId('scope', scope);
  if (Object.keys(values).length === 0) throw new SealpodError('REQUEST_FORMAT', 'there is no reference value in it');
  for (const [id, value] of Object.entries(values)) {
    checkId('reference value', id);
    if (Buffer.byteLength(JSON.stringify(value)) > maxValueBytes) {
      throw new SealpodError('REQUEST_TOO_LARGE', `reference value ${id} is too large`, {
        expected: `at most ${maxValueBytes} bytes`,
      });
    }
  }
}

/**
 * Writes values inside a transaction, all under one version.
 *
 * @throws SealpodError RV_SUPERSEDED for a statement older than one that was registered for a value before
 */
export async function putValues(
  transaction: Operations,
  { values, provenance, scope, expiresAt }: AttributedValues,
  { version, now }: { readonly version: number; readonly now: Date },
): Promise<StoredReferenceValue[]> {
  const updatedAt = now.toISOString();
  const stored = Object.entries(values).map(([id, value]) => ({
    id,
    value,
    version,
    updatedAt,
    ...(expiresAt === undefined ? {} : { expiresAt }),
    ...(scope === undefined ? {} : { scope }),
    provenance,
  }));
  for (const { id, scope: _, ...record } of stored) {
    const key = referenceValueKey(id, scope);
    if (provenance.kind === 'signed') await advanceIssued(transaction, key, provenance.issuedAt);
    await transaction.put(referenceValueNamespace, key, JSON.stringify(record));
  }
  return stored;
}

async function advanceIssued(transaction: Operations, key: string, issuedAt: string): Promise<void> {
  const known = await transaction.get(issuedNamespace, key);
  const newest = known === undefined ? '' : String(jsonOf(known));
  if (Date.parse(newest) > Date.parse(issuedAt)) {
    throw new SealpodError('RV_SUPERSEDED', `a newer statement about ${key} has been registered`, {
      expected: `issued at ${newest} or later`,
      actual: issuedAt,
    });
  }
  await transaction.put(issuedNamespace, key, JSON.stringify(issuedAt));
}
