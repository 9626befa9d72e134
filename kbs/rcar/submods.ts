import type { EarClaims } from '@sealpod/protocol/ear';

/** Submodule → its status, for the record of decisions. */
export function submodStatuses(claims: EarClaims): Record<string, string> {
  return Object.fromEntries(Object.entries(claims.submods).map(([name, appraisal]) => [name, appraisal['ear.status']]));
}
