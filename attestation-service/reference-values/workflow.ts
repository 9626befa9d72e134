import { randomBytes } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { Operations } from '@sealpod/storage';
import type { RecentClaims } from '../appraisal/recent-claims.ts';
import type { Snapshots } from '../snapshot.ts';
import {
  type Candidate,
  type CandidateDifference,
  type CandidateOrigin,
  candidateDigest,
  candidateNamespace,
  differenceOf,
  distinctApprovers,
  elementsOf,
  type PromotionMode,
  parseCandidate,
  promotedValue,
  without,
} from './candidate.ts';
import type { ReferenceValuesConfig } from './config.ts';
import { learnable } from './measured.ts';
import type { AdministratorIdentity } from './provenance.ts';
import type { StoredReferenceValue } from './record.ts';
import { isExpired, parseStoredReferenceValue, referenceValueKey, referenceValueNamespace } from './record.ts';
import { dateOf } from './statement.ts';
import { checkValues, putValues, recordChange } from './store.ts';

/** What is to be learned: values that somebody gives, or what verified evidence of a guest was measured to be. */
export interface LearnRequest {
  readonly values?: JsonObject;
  /** Where given values come from, e.g. `reference-values.json`. */
  readonly source?: string;
  /** Of evidence that this service has verified: that of a correlation id, or the newest of a TEE. */
  readonly evidence?: { readonly correlationId: string } | { readonly tee: string };
  readonly scope?: string;
  /** RFC 3339. */
  readonly expiresAt?: string;
}

/** A candidate and what promoting it would change. */
export interface CandidateReview {
  readonly candidate: Candidate;
  readonly differences: readonly CandidateDifference[];
  readonly approvals: { readonly have: number; readonly need: number };
}

const maxCandidates = 1000;

/**
 * The way of reference values into use: learn (quarantine) → diff → approve → promote → retire. Every step is a
 * transaction with a record of its own in the log of changes.
 */
export class ReferenceValueWorkflow {
  readonly #snapshots: Snapshots;
  readonly #recent: RecentClaims;
  readonly #needed: number;
  readonly #now: () => Date;

  constructor(snapshots: Snapshots, recent: RecentClaims, config: ReferenceValuesConfig, now: () => Date) {
    this.#snapshots = snapshots;
    this.#recent = recent;
    this.#needed = config.approvals ?? 1;
    this.#now = now;
  }

  /** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE; NOT_FOUND where there is no such evidence */
  async learn(request: LearnRequest, by: AdministratorIdentity): Promise<Candidate> {
    const { values, origin } = await this.#learned(request);
    const { scope } = request;
    checkValues({ values, ...(scope === undefined ? {} : { scope }) });
    const content = {
      values,
      ...(scope === undefined ? {} : { scope }),
      ...(request.expiresAt === undefined ? {} : { expiresAt: dateOf(request.expiresAt, 'expiresAt').toISOString() }),
    };
    const candidate: Candidate = {
      id: randomBytes(6).toString('hex'),
      state: 'quarantined',
      ...content,
      digest: candidateDigest(content),
      origin,
      learned: { at: this.#now().toISOString(), by },
      approvals: [],
    };
    await this.#snapshots.write(async (transaction) => {
      await makeRoom(transaction);
      await this.#store(transaction, candidate, 'learn', by);
    });
    return candidate;
  }

  async #learned(request: LearnRequest): Promise<{ readonly values: JsonObject; readonly origin: CandidateOrigin }> {
    const { values, evidence, source = 'values as given' } = request;
    if ((values === undefined) === (evidence === undefined))
      throw new SealpodError('REQUEST_FORMAT', 'give either values or evidence to learn from');
    if (values !== undefined) return { values, origin: { kind: 'given', source: source.slice(0, 256) } };
    if (evidence === undefined) throw new SealpodError('INTERNAL', 'unreachable');
    const seen = await this.#recent.find(evidence);
    const { tee, correlationId } = seen;
    return { values: learnable(tee, seen.claims), origin: { kind: 'evidence', tee, correlationId } };
  }

  async list(): Promise<Candidate[]> {
    const { candidates } = await this.#snapshots.current();
    return [...candidates.values()].toSorted((left, right) => right.learned.at.localeCompare(left.learned.at));
  }

  /** @throws SealpodError NOT_FOUND */
  async review(id: string): Promise<CandidateReview> {
    const { candidates, referenceValues } = await this.#snapshots.current();
    const candidate = candidates.get(id);
    if (candidate === undefined) throw absent(id);
    const differences = Object.entries(candidate.values).map(([name, learned]) =>
      differenceOf(name, learned, referenceValues.get(referenceValueKey(name, candidate.scope))?.value),
    );
    const have = distinctApprovers(candidate.approvals).length;
    return { candidate, differences, approvals: { have, need: this.#needed } };
  }

  /** Approving twice counts once. @throws SealpodError NOT_FOUND, STORAGE_CONFLICT for one that is promoted or retired */
  approve(id: string, by: AdministratorIdentity): Promise<Candidate> {
    return this.#change(id, ['quarantined', 'approved'], async (candidate, transaction) => {
      const approvals = candidate.approvals.some((approval) => approval.by.key === by.key)
        ? candidate.approvals
        : [...candidate.approvals, { at: this.#now().toISOString(), by }];
      const enough = distinctApprovers(approvals).length >= this.#needed;
      const approved: Candidate = { ...candidate, approvals, state: enough ? 'approved' : 'quarantined' };
      await this.#store(transaction, approved, 'approve', by);
      return approved;
    });
  }

  /**
   * Brings approved values into use, all or none. A list that grows expires with the earliest of its parts: what was there
   * does not outlive its time by what is added to it.
   *
   * @throws SealpodError NOT_FOUND; RV_QUARANTINED without enough approvals; RV_EXPIRED where their time is over;
   * STORAGE_CONFLICT for one that is promoted or retired
   */
  promote(id: string, by: AdministratorIdentity, mode: PromotionMode = 'add'): Promise<Candidate> {
    return this.#change(id, ['quarantined', 'approved'], async (candidate, transaction, version) => {
      const now = this.#now();
      this.#checkPromotable(candidate, now);
      const { scope, approvals } = candidate;
      const added: Record<string, readonly JsonValue[]> = {};
      for (const [name, learned] of Object.entries(candidate.values)) {
        const entry = await transaction.get(referenceValueNamespace, referenceValueKey(name, scope));
        const stored = entry === undefined ? undefined : parseStoredReferenceValue(entry);
        const current = stored !== undefined && mayGrow(stored, now) ? stored : undefined;
        added[name] = without(elementsOf(learned), current === undefined ? [] : elementsOf(current.value));
        const value = promotedValue(learned, current?.value, mode);
        const ends = [candidate.expiresAt, ...(value === learned ? [] : [current?.expiresAt])].flatMap(
          (end) => end ?? [],
        );
        const expiresAt = ends.toSorted()[0];
        await putValues(
          transaction,
          {
            values: { [name]: value },
            provenance: { kind: 'promoted', candidate: id, approvals },
            ...(scope === undefined ? {} : { scope }),
            ...(expiresAt === undefined ? {} : { expiresAt }),
          },
          { version, now },
        );
      }
      const promoted: Candidate = {
        ...candidate,
        state: 'promoted',
        promoted: { at: now.toISOString(), by, mode, added },
      };
      await this.#store(transaction, promoted, 'promote', by, version);
      return promoted;
    });
  }

  #checkPromotable(candidate: Candidate, now: Date): void {
    const have = distinctApprovers(candidate.approvals).length;
    if (have < this.#needed) {
      throw new SealpodError('RV_QUARANTINED', `candidate ${candidate.id} lacks approvals`, {
        expected: `${this.#needed} different administrators`,
        actual: `${have}`,
        fix: 'have it approved with `sealpod refvalue approve`',
      });
    }
    if (isExpired(candidate, now)) {
      throw new SealpodError('RV_EXPIRED', `the time of candidate ${candidate.id} is over`, {
        expected: `promoted before ${candidate.expiresAt}`,
        actual: now.toISOString(),
        fix: 'learn it again',
      });
    }
  }

  /**
   * Takes a candidate out of use: what its promotion added goes, unless another promoted candidate holds it too. One that
   * was never promoted can be promoted no more.
   *
   * @throws SealpodError NOT_FOUND, STORAGE_CONFLICT for one that is retired
   */
  retire(id: string, by: AdministratorIdentity): Promise<Candidate> {
    return this.#change(id, ['quarantined', 'approved', 'promoted'], async (candidate, transaction, version) => {
      const now = this.#now();
      const others = (await candidatesIn(transaction)).filter(
        (other) => other.id !== id && other.state === 'promoted' && other.scope === candidate.scope,
      );
      for (const [name, added] of Object.entries(candidate.promoted?.added ?? {})) {
        const kept = others.flatMap(({ values }) => (values[name] === undefined ? [] : elementsOf(values[name])));
        await this.#withdraw(transaction, candidate, name, without(added, kept), { version, now });
      }
      const retired: Candidate = { ...candidate, state: 'retired', retired: { at: now.toISOString(), by } };
      await this.#store(transaction, retired, 'retire', by, version);
      return retired;
    });
  }

  async #withdraw(
    transaction: Operations,
    { scope }: Candidate,
    name: string,
    elements: readonly JsonValue[],
    { version, now }: { readonly version: number; readonly now: Date },
  ): Promise<void> {
    const key = referenceValueKey(name, scope);
    const entry = await transaction.get(referenceValueNamespace, key);
    if (entry === undefined || elements.length === 0) return;
    const { value, provenance, expiresAt } = parseStoredReferenceValue(entry);
    const rest = without(elementsOf(value), elements);
    if (rest.length === elementsOf(value).length) return;
    if (rest.length === 0) {
      await transaction.delete(referenceValueNamespace, key);
      return;
    }
    await putValues(
      transaction,
      {
        values: { [name]: rest },
        // Whoever stood for all of it stands for what is left.
        provenance: provenance ?? { kind: 'unsigned' },
        ...(scope === undefined ? {} : { scope }),
        ...(expiresAt === undefined ? {} : { expiresAt }),
      },
      { version, now },
    );
  }

  #change(
    id: string,
    from: readonly Candidate['state'][],
    work: (candidate: Candidate, transaction: Operations, version: number) => Promise<Candidate>,
  ): Promise<Candidate> {
    return this.#snapshots.write(async (transaction, version) => {
      const entry = await transaction.get(candidateNamespace, id);
      if (entry === undefined) throw absent(id);
      const candidate = parseCandidate(entry);
      if (!from.includes(candidate.state)) {
        throw new SealpodError('STORAGE_CONFLICT', `candidate ${id} is ${candidate.state}`, {
          expected: from.join(' or '),
          actual: candidate.state,
          fix: 'see `sealpod refvalue list --candidates`',
        });
      }
      return work(candidate, transaction, version);
    });
  }

  async #store(
    transaction: Operations,
    candidate: Candidate,
    action: 'learn' | 'approve' | 'promote' | 'retire',
    by: AdministratorIdentity,
    version = 0,
  ): Promise<void> {
    const { id, ...record } = candidate;
    await transaction.put(candidateNamespace, id, JSON.stringify(record));
    await recordChange(transaction, {
      action,
      at: this.#now().toISOString(),
      by,
      candidate: id,
      versions: Object.fromEntries(Object.keys(candidate.values).map((name) => [name, version])),
      ...(candidate.scope === undefined ? {} : { scope: candidate.scope }),
    });
  }
}

/** Whether a promotion may add to a value: what has expired or was never vouched for does not get in by an addition. */
function mayGrow(stored: StoredReferenceValue, now: Date): boolean {
  return !isExpired(stored, now) && stored.provenance?.kind !== 'unsigned';
}

/** The oldest retired candidate goes where there are too many; its steps stay in the log of changes. */
async function makeRoom(transaction: Operations): Promise<void> {
  const candidates = await candidatesIn(transaction);
  if (candidates.length < maxCandidates) return;
  const [oldest] = candidates
    .filter(({ state }) => state === 'retired')
    .toSorted((left, right) => left.learned.at.localeCompare(right.learned.at));
  if (oldest === undefined) {
    throw new SealpodError('REQUEST_TOO_LARGE', 'there are too many candidates', {
      expected: `fewer than ${maxCandidates}`,
      fix: 'retire those that are not needed',
    });
  }
  await transaction.delete(candidateNamespace, oldest.id);
}

async function candidatesIn(transaction: Operations): Promise<Candidate[]> {
  return (await transaction.list(candidateNamespace, { limit: maxCandidates })).map(parseCandidate);
}

function absent(id: string): SealpodError {
  return new SealpodError('NOT_FOUND', 'there is no such candidate of reference values', {
    actual: id.slice(0, 64),
    fix: 'see `sealpod refvalue list --candidates`',
  });
}
