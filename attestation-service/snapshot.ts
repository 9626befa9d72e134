import type { Entry, Operations, Storage } from '@sealpod/storage';
import { type PolicyRecord, parseStoredPolicy, policyNamespace } from './policy/record.ts';
import { type Candidate, candidateNamespace, parseCandidate } from './reference-values/candidate.ts';
import type { StoredReferenceValue } from './reference-values/record.ts';
import { parseStoredReferenceValue, referenceValueNamespace } from './reference-values/record.ts';

/** Everything an appraisal reads from storage, as of one generation. */
export interface Snapshot {
  readonly generation: number;
  readonly policies: ReadonlyMap<string, PolicyRecord>;
  /** By `id`, or `scope:id`. */
  readonly referenceValues: ReadonlyMap<string, StoredReferenceValue>;
  /** Learned values, in use or not, by id of the candidate. */
  readonly candidates: ReadonlyMap<string, Candidate>;
}

const namespace = 'attestation';
const generationKey = 'generation';

/**
 * Policies and reference values in memory. Every write advances a generation in the same transaction, so an evaluation
 * costs one read of that generation and sees what any other replica wrote before it began.
 */
export class Snapshots {
  readonly #storage: Storage;
  #current: Snapshot | undefined;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** The snapshot of now. */
  async current(): Promise<Snapshot> {
    const generation = (await this.#storage.get(namespace, generationKey))?.version ?? 0;
    if (this.#current?.generation === generation) return this.#current;
    const [policies, referenceValues, candidates] = await Promise.all([
      listAll(this.#storage, policyNamespace),
      listAll(this.#storage, referenceValueNamespace),
      listAll(this.#storage, candidateNamespace),
    ]);
    // Read after the generation: at worst newer than it says, and then read once more by the next evaluation.
    const snapshot = {
      generation,
      policies: new Map(policies.map((entry) => [entry.key, parseStoredPolicy(entry)])),
      referenceValues: new Map(referenceValues.map((entry) => [entry.key, parseStoredReferenceValue(entry)])),
      candidates: new Map(candidates.map((entry) => [entry.key, parseCandidate(entry)])),
    };
    this.#current = snapshot;
    return snapshot;
  }

  /** Runs `work` and advances the generation, both or neither. `work` gets the generation its writes belong to. */
  write<Result>(work: (transaction: Operations, generation: number) => Promise<Result>): Promise<Result> {
    return this.#storage.transaction(async (transaction) => {
      const generation = await transaction.put(namespace, generationKey, '');
      return work(transaction, generation);
    });
  }
}

async function listAll(storage: Storage, from: string): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (;;) {
    const after = entries.at(-1)?.key;
    const page = await storage.list(from, after === undefined ? {} : { after });
    if (page.length === 0) return entries;
    entries.push(...page);
  }
}
