import type { Verdict } from '@sealpod/protocol/verdict';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import { allOf, check } from '../check.ts';
import type { Expectations, Verification } from '../verifier.ts';
import { activationHolds, checkEndorsementChain, checkKeyAttributes, checkKeysAgree } from './attestation-key.ts';
import {
  checkCommandLine,
  checkEventsKnown,
  checkInitdata,
  checkOtherRegisters,
  checkReplay,
  checkSections,
} from './boot-log.ts';
import { type KeyTrust, tpmClaims } from './claims.ts';
import { activationSecret } from './credential.ts';
import { bindingHolds, checkPcrDigest, checkSelection, checkSignature, checkStructure } from './quote.ts';
import type { KeyProof, TpmStatement } from './statement.ts';

/** What the verifier of TEE `tpm` holds against a statement, beside the expectations of the request. */
export interface TpmTrust {
  readonly roots: readonly EnrolledRoot[];
  readonly challengeKey: Uint8Array;
  /** Refuses keys that are neither proved nor enrolled, instead of claiming that they assert themselves. */
  readonly requireTrustedKey: boolean;
}

/** Verifies a statement: a checklist. Claims are only worth something where the verdict passed. */
export function verifyTpmStatement(statement: TpmStatement, trust: TpmTrust, expectations: Expectations): Verification {
  const { pcrs } = statement;
  const key = checkKeyTrust(statement, trust, expectations);
  const checks = [
    checkStructure(statement),
    ...checkFreshness(statement, trust, expectations),
    checkSignature(statement),
    ...key.checks,
    checkSelection(statement),
    checkPcrDigest(statement),
    ...checkBoot(statement),
    ...(statement.eventLog === undefined && expectations.initDataDigest === undefined
      ? []
      : [checkInitdata(pcrs, expectations.initDataDigest)]),
  ];
  return { verdict: allOf('tpm evidence', checks), claims: tpmClaims(statement, key, expectations) };
}

/**
 * The quote answers this session's challenge and is bound to this session's key. Both are in one digest; the activated
 * secret, bound to the nonce but not to the session's key, tells an old quote from one that was made for another key.
 */
function checkFreshness(statement: TpmStatement, trust: TpmTrust, expectations: Expectations): Verdict[] {
  const bound = bindingHolds(statement, expectations.reportData);
  const finding = {
    expected: expectations.reportData?.subarray(0, 32).toString('hex') ?? 'runtime data',
    actual: statement.attest.extraData.toString('hex'),
    source: 'digest of nonce and tee-pubkey',
  };
  const fresh =
    statement.keyProof !== undefined &&
    activationHolds(statement.keyProof, secretOf(statement.keyProof, trust, expectations));
  return [
    check('nonce', bound || fresh || expectations.reportData === undefined, 'EV_NONCE_MISMATCH', finding),
    check(
      'binding to the session key',
      bound || !(fresh || expectations.reportData === undefined),
      'EV_BINDING_MISMATCH',
      finding,
    ),
  ];
}

function secretOf(
  { name, endorsement }: KeyProof,
  { challengeKey }: TpmTrust,
  { nonce }: Expectations,
): Buffer | undefined {
  return nonce === undefined ? undefined : activationSecret(challengeKey, nonce, name, endorsement.x509.raw);
}

/**
 * The attestation key lives in an enrolled TPM, proved by credential activation; or, without any proof (upstream's plain
 * evidence), the operator has enrolled this very key. A key that is neither vouches for itself only: anybody can make one
 * and sign any registers with it, so that claims say so and no built-in policy affirms anything of it.
 */
function checkKeyTrust(
  statement: TpmStatement,
  trust: TpmTrust,
  expectations: Expectations,
): { readonly checks: readonly Verdict[] } & KeyTrust {
  const { keyProof, attestationKeyText } = statement;
  if (keyProof === undefined) {
    const enrolled = expectations.trustedAttestationKeys.includes(attestationKeyText);
    return {
      trust: enrolled ? 'enrolled' : 'self-asserted',
      checks: [
        check('attestation key', enrolled || !trust.requireTrustedKey, 'EV_AK_UNTRUSTED', {
          expected: 'a proof by credential activation, or an enrolled key',
          actual: `no proof for ${attestationKeyText}`,
          source: 'reference value trusted_aks',
        }),
      ],
    };
  }
  const { verdict, root } = checkEndorsementChain(keyProof.endorsement, trust.roots, expectations.now);
  return {
    trust: 'activated',
    checks: [
      checkKeysAgree(statement, keyProof),
      checkKeyAttributes(keyProof),
      verdict,
      check(
        'credential activation',
        activationHolds(keyProof, secretOf(keyProof, trust, expectations)),
        'EV_AK_UNTRUSTED',
        {
          expected: 'the secret that only the TPM of the endorsement key can release for this key',
          actual: 'another secret',
        },
      ),
    ],
    ...(root === undefined ? {} : { root }),
  };
}

/** The log accounts for every register and every event. Upstream's plain evidence has no log, and so no components. */
function checkBoot(statement: TpmStatement): Verdict[] {
  const { eventLog, pcrs, commandLine, keyProof } = statement;
  if (eventLog === undefined) {
    return keyProof === undefined
      ? []
      : [check('event log', false, 'EV_EVENTLOG_REPLAY', { expected: 'an event log', actual: 'none' })];
  }
  return [
    checkReplay(eventLog, pcrs),
    checkOtherRegisters(eventLog, pcrs),
    checkEventsKnown(eventLog),
    checkSections(eventLog),
    checkCommandLine(eventLog, commandLine),
  ];
}
