import { createHash, randomBytes } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { canonicalJson, type JsonObject, type JsonValue } from '@sealpod/protocol/json';
import { passed } from '@sealpod/protocol/verdict';
import { createRegoEngine, type RegoEngine } from '@sealpod/rego';
import type { Storage } from '@sealpod/storage';
import { AttestationResults } from './appraisal/attestation-result.ts';
import { RecentClaims, type SeenClaims } from './appraisal/recent-claims.ts';
import { type AttestationServiceConfig, defaultTokenLifetimeSeconds } from './config.ts';
import { EvidenceVerification } from './evidence-verification.ts';
import type { PolicyCheck } from './policy/check.ts';
import { Policies } from './policy/policies.ts';
import type { AdministratorIdentity } from './reference-values/provenance.ts';
import { ReferenceValues } from './reference-values/reference-values.ts';
import { ReferenceValueWorkflow } from './reference-values/workflow.ts';
import { sharedSecret } from './secrets.ts';
import {
  AttestationRefused,
  type AttestationService,
  type EvaluateRequest,
  type Evaluation,
  type EvidenceToEvaluate,
  type ReferenceValueOptions,
  type StoredPolicy,
  type StoredReferenceValue,
  type TokenKeyAdministration,
  type VerifiedEvidence,
} from './service.ts';
import { Snapshots } from './snapshot.ts';
import { TokenKeys } from './token/token-keys.ts';
import { allOf } from './verifiers/check.ts';
import { createVerifiers } from './verifiers/create.ts';
import type { Verifier } from './verifiers/verifier.ts';

/** Evidence of one request, at most: a guest must not choose how much work it makes. */
const maxEvidences = 16;

/** What the attestation service shares with the process it runs in. */
export interface AttestationServiceDependencies {
  readonly storage: Storage;
  /** An engine that the caller has and closes; each engine costs threads and memory. Default: one of its own. */
  readonly rego?: RegoEngine;
}

/**
 * Opens the attestation service in this process. Token and challenge keys are kept in `storage`, so that all replicas on
 * one storage sign and check alike.
 *
 * @throws SealpodError USAGE for an unusable configuration, STORAGE
 */
export async function createAttestationService(
  config: AttestationServiceConfig,
  dependencies: AttestationServiceDependencies,
): Promise<AttestationService> {
  const { storage, rego } = dependencies;
  const challengeKey = await sharedSecret(storage, 'challenge-key', async () => randomBytes(32));
  const now = config.now ?? (() => new Date());
  const { lifetimeSeconds = defaultTokenLifetimeSeconds, rotateKeyAfterSeconds } = config.token ?? {};
  const keys = await TokenKeys.open(
    storage,
    { lifetimeSeconds, ...(rotateKeyAfterSeconds === undefined ? {} : { rotateAfterSeconds: rotateKeyAfterSeconds }) },
    now,
  );
  const verifiers = createVerifiers(config, { storage, challengeKey, now });
  const service = new LocalAttestationService(
    config,
    { storage, ...(rego === undefined ? {} : { rego }) },
    keys,
    verifiers,
  );
  await service.start();
  return service;
}

class LocalAttestationService implements AttestationService {
  readonly #snapshots: Snapshots;
  readonly #rego: RegoEngine;
  readonly #ownsRego: boolean;
  readonly #policies: Policies;
  readonly #referenceValues: ReferenceValues;
  readonly #recent: RecentClaims;
  readonly referenceValueWorkflow: ReferenceValueWorkflow;
  readonly #keys: TokenKeys;
  readonly #verification: EvidenceVerification;
  readonly #results: AttestationResults;
  readonly #now: () => Date;

  constructor(
    config: AttestationServiceConfig,
    { storage, rego }: AttestationServiceDependencies,
    keys: TokenKeys,
    verifiers: ReadonlyMap<string, Verifier>,
  ) {
    this.#now = config.now ?? (() => new Date());
    this.#snapshots = new Snapshots(storage);
    this.#rego = rego ?? createRegoEngine(config.rego);
    this.#ownsRego = rego === undefined;
    const { referenceValues = {} } = config;
    this.#recent = new RecentClaims(storage, this.#now);
    this.#policies = new Policies(this.#snapshots, this.#rego, this.#recent, this.#now);
    this.#referenceValues = new ReferenceValues(this.#snapshots, referenceValues, this.#now);
    this.referenceValueWorkflow = new ReferenceValueWorkflow(this.#snapshots, this.#recent, referenceValues, this.#now);
    this.#keys = keys;
    const acceptUnsigned = referenceValues.acceptUnsigned ?? false;
    this.#verification = new EvidenceVerification(verifiers, acceptUnsigned);
    this.#results = new AttestationResults({
      token: config.token ?? {},
      acceptUnsigned,
      rego: this.#rego,
      recent: this.#recent,
      keys,
    });
  }

  start(): Promise<void> {
    return this.#policies.seed();
  }

  async evaluate(request: EvaluateRequest): Promise<Evaluation> {
    const { evidences, policyIds } = request;
    if (evidences.length === 0 || evidences.length > maxEvidences) {
      throw new SealpodError('REQUEST_FORMAT', 'wrong number of evidences', {
        expected: `1 to ${maxEvidences}`,
        actual: `${evidences.length}`,
      });
    }
    const now = this.#now();
    const evidenceDigest = createHash('sha256')
      .update(canonicalJson(evidences.map(({ tee, evidence }) => ({ tee, evidence }))))
      .digest('hex');
    const snapshot = await this.#snapshots.current();
    const verified = await Promise.all(
      evidences.map((evidence) => this.#verification.verify(evidence, snapshot, policyIds[0] ?? 'default', now)),
    );
    const evidenceVerdict = allOf(
      'evidence',
      verified.map(({ verdict }) => verdict),
    );
    if (!passed(evidenceVerdict)) throw new AttestationRefused(allOf('attestation', [evidenceVerdict]), evidenceDigest);
    return this.#results.issue(request, verified, evidenceVerdict, { evidenceDigest, snapshot, now });
  }

  async verifyEvidence(evidence: EvidenceToEvaluate, policyId = 'default'): Promise<VerifiedEvidence> {
    return this.#verification.verify(evidence, await this.#snapshots.current(), policyId, this.#now());
  }

  challenge(inner: Readonly<Record<string, string>>): Promise<string> {
    return this.#verification.challenge(inner);
  }

  setPolicy(id: string, policy: string): Promise<StoredPolicy> {
    return this.#policies.set(id, policy);
  }

  getPolicy(id: string): Promise<StoredPolicy | undefined> {
    return this.#policies.get(id);
  }

  listPolicies(): Promise<StoredPolicy[]> {
    return this.#policies.list();
  }

  deletePolicy(id: string): Promise<boolean> {
    return this.#policies.delete(id);
  }

  setReferenceValue(id: string, value: JsonValue, options?: ReferenceValueOptions): Promise<StoredReferenceValue> {
    return this.#referenceValues.set(id, value, options);
  }

  getReferenceValue(id: string, scope?: string): Promise<StoredReferenceValue | undefined> {
    return this.#referenceValues.get(id, scope);
  }

  listReferenceValues(): Promise<StoredReferenceValue[]> {
    return this.#referenceValues.list();
  }

  deleteReferenceValue(id: string, options?: ReferenceValueOptions): Promise<boolean> {
    return this.#referenceValues.delete(id, options);
  }

  registerReferenceValues(message: string, administrator?: AdministratorIdentity): Promise<void> {
    return this.#referenceValues.register(message, administrator);
  }

  recentClaims(): Promise<readonly SeenClaims[]> {
    return this.#recent.list();
  }

  checkPolicy(id: string, policy: string): Promise<PolicyCheck> {
    return this.#policies.check(id, policy);
  }

  async jwks(): Promise<{ readonly keys: readonly JsonObject[] }> {
    return this.#keys.jwks();
  }

  get tokenKeys(): TokenKeyAdministration {
    return this.#keys;
  }

  async close(): Promise<void> {
    if (this.#ownsRego) await this.#rego.close();
  }
}
