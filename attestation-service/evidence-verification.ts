import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { initDataOf, nonceOf, reportDataOf } from './appraisal/binding.ts';
import type { EvidenceToEvaluate, VerifiedEvidence } from './evidence.ts';
import { findReferenceValue, unusable } from './reference-values/usable.ts';
import type { Snapshot } from './snapshot.ts';
import type { Verifier } from './verifiers/verifier.ts';

/** Verifies evidence by the verifier of its TEE; what it means is for the appraisal. */
export class EvidenceVerification {
  readonly #verifiers: ReadonlyMap<string, Verifier>;
  readonly #acceptUnsigned: boolean;

  /** @param acceptUnsigned whether reference values count that nobody stands for */
  constructor(verifiers: ReadonlyMap<string, Verifier>, acceptUnsigned: boolean) {
    this.#verifiers = verifiers;
    this.#acceptUnsigned = acceptUnsigned;
  }

  /** Parses and verifies one piece of evidence; whatever is wrong with it becomes a verdict. */
  async verify(
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
      const bound = initDataOf(request);
      const reportData = reportDataOf(request);
      const nonce = nonceOf(request);
      const { verdict, claims, submodules } = await verifier.verify(request.evidence, {
        ...(reportData === undefined ? {} : { reportData }),
        ...(nonce === undefined ? {} : { nonce }),
        ...bound,
        trustedAttestationKeys: this.#trustedAttestationKeys(snapshot, policyId, now),
        now,
      });
      return {
        verdict,
        claims,
        ...(submodules === undefined ? {} : { submodules }),
        ...(bound.initData === undefined ? {} : { initData: bound.initData.document }),
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

  /** The challenge text for a TEE. @throws SealpodError EV_TEE_UNSUPPORTED, and what the verifier refuses */
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
}
