import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { canonicalJson, type JsonObject, type JsonValue } from '@sealpod/protocol/json';
import { type Entry, jsonOf } from '@sealpod/storage';
import type { AdministratorIdentity, Approval } from './provenance.ts';

export const candidateNamespace = 'reference-value-candidate';

export const candidateStates = ['quarantined', 'approved', 'promoted', 'retired'] as const;
export type CandidateState = (typeof candidateStates)[number];

/** Where learned values come from. */
export type CandidateOrigin =
  /** Somebody gave them, e.g. from a measured image. */
  | { readonly kind: 'given'; readonly source: string }
  /** They were read off verified evidence of a guest. */
  | { readonly kind: 'evidence'; readonly tee: string; readonly correlationId: string };

/** Reference values that were learned together. Until they are promoted no appraisal sees them. */
export interface Candidate {
  readonly id: string;
  readonly state: CandidateState;
  readonly values: JsonObject;
  /** SHA-256 (hex) of values, scope and expiry: what is approved. */
  readonly digest: string;
  readonly scope?: string;
  /** RFC 3339, of the values once they are promoted. */
  readonly expiresAt?: string;
  readonly origin: CandidateOrigin;
  readonly learned: Approval;
  readonly approvals: readonly Approval[];
  readonly promoted?: Approval & {
    readonly mode: PromotionMode;
    /** Under each id what was not there before: what retiring takes away again. */
    readonly added: Readonly<Record<string, readonly JsonValue[]>>;
  };
  readonly retired?: Approval;
}

/** `add`: lists grow by what is new. `replace`: only the learned values count from then on. */
export type PromotionMode = 'add' | 'replace';

/** The digest that stands for a candidate's content. */
export function candidateDigest({
  values,
  scope,
  expiresAt,
}: Pick<Candidate, 'values' | 'scope' | 'expiresAt'>): string {
  const content = { values, scope: scope ?? null, expiresAt: expiresAt ?? null };
  return createHash('sha256').update(canonicalJson(content)).digest('hex');
}

/** @throws SealpodError STORAGE, also where the content is not what its digest says */
export function parseCandidate(entry: Entry): Candidate {
  const record = jsonOf(entry) as Candidate;
  const intact =
    typeof record === 'object' &&
    record !== null &&
    candidateStates.includes(record.state) &&
    typeof record.values === 'object' &&
    Array.isArray(record.approvals) &&
    candidateDigest(record) === record.digest;
  if (!intact) throw new SealpodError('STORAGE', `the stored candidate ${entry.key} is damaged`);
  return { ...record, id: entry.key };
}

/** Administrators who approved, each counted once however often and under whatever name they did. */
export function distinctApprovers(approvals: readonly Approval[]): AdministratorIdentity[] {
  return [...new Map(approvals.map(({ by }) => [by.key, by])).values()];
}

/** What promoting a candidate would change of one reference value. */
export interface CandidateDifference {
  /** The reference value's id, e.g. `tpm_kernel`: the component. */
  readonly id: string;
  readonly change: 'new' | 'changed' | 'unchanged';
  /** Undefined where none is registered. */
  readonly current?: JsonValue;
  readonly learned: JsonValue;
  /** Elements that are not there now. */
  readonly added: readonly JsonValue[];
  /** Elements that are there now and were not learned: `add` keeps them, `replace` drops them. */
  readonly missing: readonly JsonValue[];
}

/** The elements of a list; anything else is one element. */
export function elementsOf(value: JsonValue): readonly JsonValue[] {
  return Array.isArray(value) ? (value as readonly JsonValue[]) : [value];
}

/** `of` without those that `others` has. */
export function without(of: readonly JsonValue[], others: readonly JsonValue[]): JsonValue[] {
  const known = new Set(others.map((other) => canonicalJson(other)));
  return of.filter((element) => !known.has(canonicalJson(element)));
}

/** Compares one learned value with the one in use. */
export function differenceOf(id: string, learned: JsonValue, current: JsonValue | undefined): CandidateDifference {
  const now = current === undefined ? [] : elementsOf(current);
  const added = without(elementsOf(learned), now);
  const missing = without(now, elementsOf(learned));
  return {
    id,
    change: current === undefined ? 'new' : added.length + missing.length === 0 ? 'unchanged' : 'changed',
    ...(current === undefined ? {} : { current }),
    learned,
    added,
    missing,
  };
}

/** What an id holds after a promotion. Single values and values of another shape are always replaced. */
export function promotedValue(learned: JsonValue, current: JsonValue | undefined, mode: PromotionMode): JsonValue {
  if (mode === 'replace' || !Array.isArray(learned) || !Array.isArray(current)) return learned;
  return [...(current as JsonValue[]), ...without(learned as JsonValue[], current as JsonValue[])];
}
