import { createHash, randomBytes } from 'node:crypto';
import type { Appraisal, EarClaims } from '@sealpod/protocol/ear';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { canonicalJson, type JsonObject, type JsonValue } from '@sealpod/protocol/json';
import { passed, type Verdict } from '@sealpod/protocol/verdict';
import { createRegoEngine, type RegoEngine } from '@sealpod/rego';
import type { Storage } from '@sealpod/storage';
import { annotatedEvidence } from './appraisal/annotated-evidence.ts';
import { appraise } from './appraisal/appraise.ts';
import { initDataOf, nonceOf, reportDataOf } from './appraisal/binding.ts';
import { explainAppraisal } from './appraisal/explain.ts';
import { initDataClaims } from './appraisal/init-data-claims.ts';
import { RecentClaims, type SeenClaims } from './appraisal/recent-claims.ts';
import { RememberedAnswers } from './appraisal/remembered-answers.ts';
import { submoduleName, submodulesOf, withoutAdditional } from './appraisal/submodules.ts';
import { type AttestationServiceConfig, defaultIssuer } from './config.ts';
import type { PolicyCheck } from './policy/check.ts';
import { Policies } from './policy/policies.ts';
import type { AdministratorIdentity } from './reference-values/provenance.ts';
import { ReferenceValues } from './reference-values/reference-values.ts';
import { findReferenceValue, unusable } from './reference-values/usable.ts';
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
import { type Snapshot, Snapshots } from './snapshot.ts';
import { TokenKeys } from './token/token-keys.ts';
import { allOf } from './verifiers/check.ts';
import { createVerifiers } from './verifiers/create.ts';
import type { Verifier } from './verifiers/verifier.ts';

/** Evidence of one request, at most: a guest must not choose how much work it makes. */
const maxEvidences = 16;
const defaultLifetimeSeconds = 300;

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
  const { lifetimeSeconds = defaultLifetimeSeconds, rotateKeyAfterSeconds } = config.token ?? {};
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
  readonly #config: AttestationServiceConfig;
  readonly #snapshots: Snapshots;
  readonly #rego: RegoEngine;
  readonly #ownsRego: boolean;
  readonly #policies: Policies;
  readonly #referenceValues: ReferenceValues;
  readonly #recent: RecentClaims;
  readonly #answers = new RememberedAnswers();
  readonly referenceValueWorkflow: ReferenceValueWorkflow;
  readonly #keys: TokenKeys;
  readonly #verifiers: ReadonlyMap<string, Verifier>;
  readonly #now: () => Date;

  constructor(
    config: AttestationServiceConfig,
    { storage, rego }: AttestationServiceDependencies,
    keys: TokenKeys,
    verifiers: ReadonlyMap<string, Verifier>,
  ) {
    this.#config = config;
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
    this.#verifiers = verifiers;
  }

  get #acceptUnsigned(): boolean {
    return this.#config.referenceValues?.acceptUnsigned ?? false;
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
      evidences.map((evidence) => this.#verify(evidence, snapshot, policyIds[0] ?? 'default', now)),
    );
    const evidenceVerdict = allOf(
      'evidence',
      verified.map(({ verdict }) => verdict),
    );
    if (!passed(evidenceVerdict)) throw new AttestationRefused(allOf('attestation', [evidenceVerdict]), evidenceDigest);
    return this.#appraise(request, verified, evidenceVerdict, { evidenceDigest, snapshot, now });
  }

  async #appraise(
    { evidences, policyIds, correlationId }: EvaluateRequest,
    verified: readonly VerifiedEvidence[],
    evidenceVerdict: Verdict,
    {
      evidenceDigest,
      snapshot,
      now,
    }: { readonly evidenceDigest: string; readonly snapshot: Snapshot; readonly now: Date },
  ): Promise<Evaluation> {
    const policyId = policyIds[0] ?? 'default';
    const submods: Record<string, Appraisal> = {};
    const explanations: Verdict[] = [];
    const policyVersions: Record<string, string> = {};
    const referenceValueVersions: Record<string, number> = {};
    for (const [index, evidence] of evidences.entries()) {
      const { initData } = verified[index] ?? {};
      for (const { teeClass, claims } of submodulesOf(evidence, verified[index])) {
        const submodule = submoduleName(teeClass, Object.keys(submods));
        const annotated = annotatedEvidence(evidence, claims, initData && initDataClaims(initData));
        const rules = { policyId, acceptUnsigned: this.#acceptUnsigned, now };
        const outcome = await appraise(this.#rego, snapshot, {
          ...rules,
          teeClass,
          evidence: annotated,
          answers: this.#answers,
        });
        submods[submodule] =
          this.#config.token?.verbose === false ? withoutAdditional(outcome.appraisal) : outcome.appraisal;
        explanations.push(explainAppraisal({ submodule, tee: evidence.tee, claims }, outcome, snapshot, rules));
        await this.#recent.see({ tee: evidence.tee, teeClass, correlationId, claims, input: annotated });
        policyVersions[outcome.policy.id] = outcome.policy.sha256;
        for (const id of outcome.referenceValueIds)
          referenceValueVersions[id] = findReferenceValue(snapshot, id, policyId)?.version ?? 0;
      }
    }
    const claims = this.#earClaims(submods, correlationId, now);
    return {
      token: await this.#keys.sign(claims),
      claims,
      verdict: allOf('attestation', [evidenceVerdict, ...explanations]),
      evidenceDigest,
      policyVersions,
      referenceValueVersions,
    };
  }

  #earClaims(submods: Record<string, Appraisal>, correlationId: string, now: Date): EarClaims {
    const { issuer, developer, build, profile, lifetimeSeconds, audience } = this.#config.token ?? {};
    const iat = Math.floor(now.getTime() / 1000);
    return {
      eat_profile: profile ?? 'tag:github.com,2024:confidential-containers/Trustee',
      iat,
      'ear.verifier-id': {
        developer: developer ?? 'https://confidentialcontainers.org',
        build: build ?? 'attestation-service 0.1.0',
      },
      submods,
      exp: iat + (lifetimeSeconds ?? defaultLifetimeSeconds),
      iss: issuer ?? defaultIssuer,
      ...(audience === undefined ? {} : { aud: audience }),
      jti: correlationId,
    };
  }

  async verifyEvidence(evidence: EvidenceToEvaluate, policyId = 'default'): Promise<VerifiedEvidence> {
    return this.#verify(evidence, await this.#snapshots.current(), policyId, this.#now());
  }

  /** Parses and verifies one piece of evidence; whatever is wrong with it becomes a verdict. */
  async #verify(
    request: EvidenceToEvaluate,
    snapshot: Snapshot,
    policyId: string,
    now: Date,
  ): Promise<VerifiedEvidence> {
    const name = `${request.tee} evidence`;
    const verifier = this.#verifiers.get(request.tee);
    if (verifier === undefined) {
      const enabled = [...this.#verifiers.keys()].join(', ') || 'none';
      return {
        verdict: {
          check: name,
          code: 'EV_TEE_UNSUPPORTED',
          expected: `one of: ${enabled}`,
          actual: request.tee,
          source: 'configuration',
        },
      };
    }
    try {
      const initData = initDataOf(request);
      const reportData = reportDataOf(request);
      const nonce = nonceOf(request);
      const { verdict, claims, submodules } = await verifier.verify(request.evidence, {
        ...(reportData === undefined ? {} : { reportData }),
        ...(nonce === undefined ? {} : { nonce }),
        ...(initData.digest === undefined ? {} : { initDataDigest: initData.digest }),
        ...(initData.toml === undefined ? {} : { initDataToml: initData.toml }),
        trustedAttestationKeys: this.#trustedAttestationKeys(snapshot, policyId, now),
        now,
      });
      return {
        verdict,
        claims,
        ...(submodules === undefined ? {} : { submodules }),
        ...(initData.document === undefined ? {} : { initData: initData.document }),
      };
    } catch (thrown) {
      const error = asSealpodError(thrown);
      return { verdict: { check: name, code: error.code, actual: error.message, ...error.detail } };
    }
  }

  /** Attestation keys that the operator enrolled, in the reference value that upstream's policy asks for too. */
  #trustedAttestationKeys(snapshot: Snapshot, policyId: string, now: Date): string[] {
    const stored = findReferenceValue(snapshot, 'trusted_aks', policyId);
    const usable =
      stored !== undefined && unusable(stored, { acceptUnsigned: this.#acceptUnsigned, now }) === undefined;
    if (!usable || !Array.isArray(stored.value)) return [];
    return stored.value.filter((key): key is string => typeof key === 'string');
  }

  async challenge(inner: Readonly<Record<string, string>>): Promise<string> {
    const tee = inner['tee'] ?? '';
    const verifier = this.#verifiers.get(tee);
    if (verifier === undefined) {
      throw new SealpodError('EV_TEE_UNSUPPORTED', `no verifier is enabled for TEE ${tee.slice(0, 32)}`, {
        actual: tee.slice(0, 32),
      });
    }
    return verifier.challenge?.(inner['tee_params'] ?? '') ?? '';
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
