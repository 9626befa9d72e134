import { enrolRoots, type RootConfiguration } from '../../endorsements/enrolled-roots.ts';
import type { Verifier } from '../verifier.ts';
import { answerChallenge } from './credential.ts';
import { parseTpmStatement } from './statement.ts';
import { verifyTpmStatement } from './verify.ts';

/** Configuration of TEE `tpm`. */
export interface TpmConfig {
  /** Whose endorsement key certificates are accepted. */
  readonly roots: readonly RootConfiguration[];
  /**
   * Refuses evidence whose key is neither proved nor enrolled. Default false: it gets claims that say `self-asserted`, as
   * upstream gives it, and no built-in policy affirms it.
   */
  readonly requireTrustedKey?: boolean;
}

/**
 * The verifier of TEE `tpm`.
 *
 * @param challengeKey 32 random bytes shared by all replicas
 * @throws SealpodError USAGE for an unusable root
 */
export function tpmVerifier({ roots, requireTrustedKey = false }: TpmConfig, challengeKey: Uint8Array): Verifier {
  const trust = { roots: enrolRoots(roots), challengeKey, requireTrustedKey };
  return {
    tee: 'tpm',
    verify: (evidence, expectations) => verifyTpmStatement(parseTpmStatement(evidence), trust, expectations),
    challenge: (parameters) => answerChallenge(challengeKey, parameters),
  };
}
