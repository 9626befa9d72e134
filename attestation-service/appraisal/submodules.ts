import type { Appraisal } from '@sealpod/protocol/ear';
import type { JsonObject } from '@sealpod/protocol/json';
import { isTee, teeClassOf } from '@sealpod/protocol/rcar';
import type { EvidenceToEvaluate, VerifiedEvidence } from '../evidence.ts';
import type { SubmoduleClaims } from '../verifiers/verifier.ts';

/** What devices sent along makes tokens large; what the hardware signed still covers it. */
export function withoutAdditional(appraisal: Appraisal): Appraisal {
  const evidence = appraisal['ear.veraison.annotated-evidence'];
  const runtime = evidence['runtime_data_claims'];
  if (typeof runtime !== 'object' || runtime === null || !('additional-evidence' in runtime)) return appraisal;
  const { 'additional-evidence': _additional, ...kept } = runtime as JsonObject;
  return { ...appraisal, 'ear.veraison.annotated-evidence': { ...evidence, runtime_data_claims: kept } };
}

/** One submodule of the TEE's own class, or those that its verifier tells. */
export function submodulesOf(
  { tee }: EvidenceToEvaluate,
  verified: VerifiedEvidence | undefined,
): readonly SubmoduleClaims[] {
  const { claims = {}, submodules } = verified ?? {};
  return submodules ?? [{ teeClass: isTee(tee) ? teeClassOf(tee) : 'cpu', claims }];
}

/** The next name of a class: `cpu0`, `gpu0`, `gpu1`, … */
export function submoduleName(teeClass: string, taken: readonly string[]): string {
  return `${teeClass}${taken.filter((name) => name.replace(/\d+$/, '') === teeClass).length}`;
}
