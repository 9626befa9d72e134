import { SealpodError } from '@sealpod/protocol/errors';
import type { RegoEngine } from '@sealpod/rego';
import type { RecentClaims } from '../appraisal/recent-claims.ts';
import type { Snapshots } from '../snapshot.ts';
import { builtInPolicies } from './built-in.ts';
import { checkAttestationPolicy, type PolicyCheck } from './check.ts';
import { checkId } from './policy-id.ts';
import type { StoredPolicy } from './record.ts';
import { policyNamespace, policyRecord, storedPolicy } from './record.ts';

const maxPolicyBytes = 1024 * 1024;

/** Attestation policies in storage. */
export class Policies {
  readonly #snapshots: Snapshots;
  readonly #rego: RegoEngine;
  readonly #recent: RecentClaims;
  readonly #now: () => Date;

  constructor(snapshots: Snapshots, rego: RegoEngine, recent: RecentClaims, now: () => Date) {
    this.#snapshots = snapshots;
    this.#rego = rego;
    this.#recent = recent;
    this.#now = now;
  }

  /** Stores built-in policies that are not there, and renews those of an earlier release that nobody changed. */
  async seed(): Promise<void> {
    const { policies } = await this.#snapshots.current();
    const stale = Object.entries(builtInPolicies).filter(([id, text]) => {
      const stored = policies.get(id);
      return stored === undefined || (stored.builtIn && stored.policy !== text);
    });
    if (stale.length === 0) return;
    await this.#snapshots.write(async (transaction) => {
      for (const [id, text] of stale) {
        await transaction.put(policyNamespace, id, JSON.stringify(policyRecord(id, text, true, this.#now())));
      }
    });
  }

  /** What storing it would check. @throws as `set` */
  async check(id: string, policy: string): Promise<PolicyCheck> {
    checkId('policy', id);
    if (Buffer.byteLength(policy) > maxPolicyBytes) {
      throw new SealpodError('REQUEST_TOO_LARGE', 'the policy is too large', {
        expected: `at most ${maxPolicyBytes} bytes`,
      });
    }
    const { referenceValues } = await this.#snapshots.current();
    const values = Object.fromEntries([...referenceValues.values()].map(({ id: name, value }) => [name, value]));
    return checkAttestationPolicy(
      this.#rego,
      { id, policy },
      { seen: await this.#recent.list(), referenceValues: values },
    );
  }

  async set(id: string, policy: string): Promise<StoredPolicy> {
    await this.check(id, policy);
    const record = policyRecord(id, policy, false, this.#now());
    await this.#snapshots.write((transaction) => transaction.put(policyNamespace, id, JSON.stringify(record)));
    return { id, policy, sha256: record.sha256, updatedAt: record.updatedAt };
  }

  async get(id: string): Promise<StoredPolicy | undefined> {
    const record = (await this.#snapshots.current()).policies.get(id);
    return record && storedPolicy(record);
  }

  async list(): Promise<StoredPolicy[]> {
    return [...(await this.#snapshots.current()).policies.values()].flatMap((record) => storedPolicy(record) ?? []);
  }

  async delete(id: string): Promise<boolean> {
    if ((await this.get(id)) === undefined) return false;
    await this.#snapshots.write(async (transaction) => {
      if (Object.hasOwn(builtInPolicies, id)) {
        await transaction.put(policyNamespace, id, JSON.stringify(policyRecord(id, undefined, false, this.#now())));
      } else {
        await transaction.delete(policyNamespace, id);
      }
    });
    return true;
  }
}
