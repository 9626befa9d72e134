import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import type { Snapshots } from '../snapshot.ts';
import { openSigners, type ReferenceValuesConfig, type Signer } from './config.ts';
import { readReferenceValueMessage } from './message.ts';
import type { AdministratorIdentity, AttributedValues } from './provenance.ts';
import type { ReferenceValueOptions, StoredReferenceValue } from './record.ts';
import { referenceValueKey, referenceValueNamespace } from './record.ts';
import { dateOf } from './statement.ts';
import { checkValues, putValues, recordChange } from './store.ts';

/** Reference values in storage. A version is the storage generation of its write, so it never repeats for an id. */
export class ReferenceValues {
  readonly #snapshots: Snapshots;
  readonly #config: ReferenceValuesConfig;
  readonly #signers: readonly Signer[];
  readonly #now: () => Date;

  /** @throws SealpodError USAGE for unusable signers */
  constructor(snapshots: Snapshots, config: ReferenceValuesConfig, now: () => Date) {
    this.#snapshots = snapshots;
    this.#config = config;
    this.#signers = openSigners(config);
    this.#now = now;
  }

  async set(id: string, value: JsonValue, options: ReferenceValueOptions = {}): Promise<StoredReferenceValue> {
    const { administrator, scope, expiresAt } = options;
    this.#requireOneApproval();
    const [stored] = await this.#register(
      {
        values: { [id]: value },
        provenance: { kind: 'administrator', ...(administrator ?? { subject: 'in process' }) },
        ...(scope === undefined ? {} : { scope }),
        ...(expiresAt === undefined ? {} : { expiresAt: dateOf(expiresAt, 'expiresAt').toISOString() }),
      },
      administrator,
    );
    if (stored === undefined) throw new SealpodError('INTERNAL', 'the reference value was not stored');
    return stored;
  }

  /** Registers all values of a message, or none. */
  async register(message: string, administrator: AdministratorIdentity | undefined): Promise<void> {
    const attributed = readReferenceValueMessage(message, {
      config: this.#config,
      signers: this.#signers,
      now: this.#now(),
      ...(administrator === undefined ? {} : { administrator }),
    });
    if (attributed.provenance.kind !== 'signed') this.#requireOneApproval();
    await this.#register(attributed, administrator);
  }

  async get(id: string, scope: string | undefined): Promise<StoredReferenceValue | undefined> {
    return (await this.#snapshots.current()).referenceValues.get(referenceValueKey(id, scope));
  }

  async list(): Promise<StoredReferenceValue[]> {
    return [...(await this.#snapshots.current()).referenceValues.values()];
  }

  delete(id: string, { scope, administrator }: ReferenceValueOptions = {}): Promise<boolean> {
    const at = this.#now().toISOString();
    return this.#snapshots.write(async (transaction) => {
      if (!(await transaction.delete(referenceValueNamespace, referenceValueKey(id, scope)))) return false;
      await recordChange(transaction, {
        action: 'delete',
        at,
        versions: { [id]: 0 },
        ...(scope === undefined ? {} : { scope }),
        ...(administrator === undefined ? {} : { by: administrator }),
      });
      return true;
    });
  }

  /** Where several administrators have to agree, one alone registers nothing. */
  #requireOneApproval(): void {
    const { approvals = 1 } = this.#config;
    if (approvals <= 1) return;
    throw new SealpodError(
      'RV_QUARANTINED',
      'reference values are registered by learning, approval and promotion only',
      {
        expected: `approval of ${approvals} administrators`,
        actual: 'registered directly',
        source: 'configuration: referenceValues.approvals',
        fix: 'use `sealpod refvalue learn`, `approve` and `promote`',
      },
    );
  }

  #register(
    attributed: AttributedValues,
    administrator: AdministratorIdentity | undefined,
  ): Promise<StoredReferenceValue[]> {
    checkValues(attributed);
    const now = this.#now();
    return this.#snapshots.write(async (transaction, version) => {
      const stored = await putValues(transaction, attributed, { version, now });
      await recordChange(transaction, {
        action: 'register',
        at: now.toISOString(),
        versions: Object.fromEntries(stored.map(({ id }) => [id, version])),
        provenance: attributed.provenance,
        ...(attributed.scope === undefined ? {} : { scope: attributed.scope }),
        ...(administrator === undefined ? {} : { by: administrator }),
      });
      return stored;
    });
  }
}
