import type { Appraisal, EarClaims } from '@sealpod/protocol/ear';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { RegoEngine } from '@sealpod/rego';
import { defaultIssuer, defaultTokenLifetimeSeconds, type TokenConfig } from '../config.ts';
import type { VerifiedEvidence } from '../evidence.ts';
import { findReferenceValue } from '../reference-values/usable.ts';
import type { EvaluateRequest, Evaluation } from '../service.ts';
import type { Snapshot } from '../snapshot.ts';
import type { TokenKeys } from '../token/token-keys.ts';
import { allOf } from '../verifiers/check.ts';
import { annotatedEvidence } from './annotated-evidence.ts';
import { appraise } from './appraise.ts';
import { explainAppraisal } from './explain.ts';
import { initDataClaims } from './init-data-claims.ts';
import type { RecentClaims } from './recent-claims.ts';
import { RememberedAnswers } from './remembered-answers.ts';
import { submoduleName, submodulesOf, withoutAdditional } from './submodules.ts';

/** What an attestation result is made with. */
export interface AttestationResultParts {
  readonly token: TokenConfig;
  /** Whether reference values count that nobody stands for. */
  readonly acceptUnsigned: boolean;
  readonly rego: RegoEngine;
  readonly recent: RecentClaims;
  readonly keys: TokenKeys;
}

/** What one appraisal holds to from its beginning. */
interface Appraised {
  readonly evidenceDigest: string;
  readonly snapshot: Snapshot;
  readonly now: Date;
}

/** Makes attestation results (RFC 9334) of verified evidence: policies appraise it, the token key signs what they say. */
export class AttestationResults {
  readonly #token: TokenConfig;
  readonly #acceptUnsigned: boolean;
  readonly #rego: RegoEngine;
  readonly #recent: RecentClaims;
  readonly #keys: TokenKeys;
  readonly #answers = new RememberedAnswers();

  constructor({ token, acceptUnsigned, rego, recent, keys }: AttestationResultParts) {
    this.#token = token;
    this.#acceptUnsigned = acceptUnsigned;
    this.#rego = rego;
    this.#recent = recent;
    this.#keys = keys;
  }

  /** Appraises what was verified and signs the result. @throws SealpodError of policies and storage */
  async issue(
    { evidences, policyIds, correlationId }: EvaluateRequest,
    verified: readonly VerifiedEvidence[],
    evidenceVerdict: Verdict,
    { evidenceDigest, snapshot, now }: Appraised,
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
        submods[submodule] = this.#token.verbose === false ? withoutAdditional(outcome.appraisal) : outcome.appraisal;
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
    const { issuer, developer, build, profile, lifetimeSeconds, audience } = this.#token;
    const iat = Math.floor(now.getTime() / 1000);
    return {
      eat_profile: profile ?? 'tag:github.com,2024:confidential-containers/Trustee',
      iat,
      'ear.verifier-id': {
        developer: developer ?? 'https://confidentialcontainers.org',
        build: build ?? 'attestation-service 0.1.0',
      },
      submods,
      exp: iat + (lifetimeSeconds ?? defaultTokenLifetimeSeconds),
      iss: issuer ?? defaultIssuer,
      ...(audience === undefined ? {} : { aud: audience }),
      jti: correlationId,
    };
  }
}
