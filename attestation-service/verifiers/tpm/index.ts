import { enrolRoots, type RootConfiguration } from '../../endorsements/enrolled-roots.ts';
import type { Verifier } from '../verifier.ts';
import { answerChallenge } from './credential.ts';
import { parseTpmStatement } from './statement.ts';
import { verifyTpmStatement } from './verify.ts';

/**
 * The verifier of TEE `tpm`.
 *
 * @param challengeKey 32 random bytes shared by all replicas
 * @throws SealpodError USAGE for an unusable root
 */
export function tpmVerifier(roots: readonly RootConfiguration[], challengeKey: Uint8Array): Verifier {
  const trust = { roots: enrolRoots(roots), challengeKey };
  return {
    tee: 'tpm',
    verify: (evidence, expectations) => verifyTpmStatement(parseTpmStatement(evidence), trust, expectations),
    challenge: (parameters) => answerChallenge(challengeKey, parameters),
  };
}
