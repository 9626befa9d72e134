import type { ReasonCode } from './reason-codes.ts';

/** The outcome of one check: a value, never an exception. `code` is `OK` where the check passed. */
export interface Verdict {
  /** Name of the check, e.g. `quote signature`; for a measured component its name, e.g. `command line`. */
  readonly check: string;
  readonly code: ReasonCode | 'OK';
  readonly expected?: string;
  readonly actual?: string;
  /** Where the expectation comes from, e.g. `reference value tpm_command_line`. */
  readonly source?: string;
  readonly fix?: string;
  readonly children?: readonly Verdict[];
}

/** True where neither the verdict nor any below it failed. */
export function passed(verdict: Verdict): boolean {
  return verdict.code === 'OK' && (verdict.children ?? []).every(passed);
}

/** The failed verdicts without children, depth first: what an operator has to look at. */
export function failures(verdict: Verdict): Verdict[] {
  const below = (verdict.children ?? []).flatMap(failures);
  return below.length > 0 || verdict.code === 'OK' ? below : [verdict];
}
