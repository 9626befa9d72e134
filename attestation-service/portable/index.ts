/**
 * Verifiers for Node and for browsers: the service's own, without its storage, network and policies.
 *
 * On Node this module is used as it is. For a browser `node attestation-service/scripts/build-portable.ts FILE` bundles
 * it with `portable/browser/` in the place of `node:crypto` and `Buffer`.
 *
 * @module
 */
import { randomBytes } from 'node:crypto';
import { asSealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import type { AmdEndorsementSource } from '../endorsements/amd/source.ts';
import type { RootConfiguration } from '../endorsements/enrolled-roots.ts';
import { azureSnpVerifier } from '../verifiers/azure/snp.ts';
import { azureTdxVerifier } from '../verifiers/azure/tdx.ts';
import { snpRules, snpVerifier } from '../verifiers/snp/verifier.ts';
import type { SnpRules } from '../verifiers/snp/verify.ts';
import { tdxVerifier } from '../verifiers/tdx/index.ts';
import { tpmVerifier } from '../verifiers/tpm/index.ts';
import type { Verification, Verifier } from '../verifiers/verifier.ts';
import { onlyRoot, type TdxOptions, tdxRules } from './tdx.ts';

export { failures, passed, type Verdict } from '@sealpod/protocol/verdict';
export { type EarExpectations, type EarVerification, verifyEarToken } from './ear.ts';
export type { RootConfiguration, TdxOptions, Verification };

/** What evidence is held against. What is absent is not compared, except that evidence of TDX and TPM needs `reportData`. */
export interface PortableExpectations {
  /** The digest (or data) that evidence has to carry; see `runtimeDataDigest` of the protocol. */
  readonly reportData?: Uint8Array;
  /** The session's nonce as text: only for TPM evidence with an activated key. */
  readonly nonce?: string;
  readonly initDataDigest?: Uint8Array;
  /** Enrolled TPM attestation keys, base64 of SubjectPublicKeyInfo. */
  readonly trustedAttestationKeys?: readonly string[];
  /** Default: now. */
  readonly now?: Date;
}

/** Certificates and lists that do not come with the evidence. Nothing is fetched. */
export interface SnpOptions {
  /** Certificate of the VCEK (DER or PEM) where the evidence brings none. */
  readonly versionedKey?: Uint8Array;
  /** Revocation list of the root, DER. */
  readonly revocationList?: Uint8Array;
  readonly requireRevocationList?: boolean;
  readonly allowVersion2?: boolean;
  /** Stands in the place of AMD's roots, for evidence made by a test. */
  readonly root?: RootConfiguration;
}

export interface TpmOptions {
  /** Authorities of endorsement keys. */
  readonly roots?: readonly RootConfiguration[];
  /**
   * The key that challenges were derived from. Without one no credential activation holds, and only
   * `trustedAttestationKeys` make a key trusted.
   */
  readonly challengeKey?: Uint8Array;
  /** Refuses a key that nobody vouches for but the guest. True by default. */
  readonly requireTrustedKey?: boolean;
}

export interface PortableOptions {
  readonly snp?: SnpOptions;
  readonly tdx?: TdxOptions;
  readonly tpm?: TpmOptions;
}

/** TEEs that {@link verifyEvidence} knows, and their verifiers. */
const verifiers = {
  snp: ({ snp = {} }) => snpVerifier(rulesOf(snp), [givenCollateral(snp)]),
  'az-snp-vtpm': ({ snp = {} }) => azureSnpVerifier(rulesOf(snp), [givenCollateral(snp)]),
  tdx: ({ tdx = {} }) => tdxVerifier(tdxRules(tdx)),
  'az-tdx-vtpm': ({ tdx = {} }) => azureTdxVerifier(tdxRules(tdx)),
  // A key that nobody knows, where there is none: an empty one would let anybody make the secret.
  tpm: ({ tpm: { roots = [], requireTrustedKey = true, challengeKey = randomBytes(32) } = {} }) =>
    tpmVerifier({ roots, requireTrustedKey }, challengeKey),
} as const satisfies Record<string, (options: PortableOptions) => Verifier>;

export type PortableTee = keyof typeof verifiers;

/** The TEEs whose evidence can be verified here. */
export const portableTees = Object.keys(verifiers) as readonly PortableTee[];

/**
 * Verifies the evidence of one TEE, as the guest sent it, with the service's verifier: the same checks, reason codes
 * and claims. What cannot be parsed is a verdict as well. Claims are worth something only where the verdict passed.
 * Measurements are not compared with reference values.
 *
 * @throws SealpodError USAGE for unusable roots
 */
export async function verifyEvidence(
  tee: string,
  evidence: JsonValue,
  expectations: PortableExpectations = {},
  options: PortableOptions = {},
): Promise<Verification> {
  const name = `${tee} evidence`;
  if (!Object.hasOwn(verifiers, tee)) {
    const verdict = {
      check: name,
      code: 'EV_TEE_UNSUPPORTED',
      expected: portableTees.join(', '),
      actual: tee,
    } as const;
    return { verdict, claims: {} };
  }
  const verifier = verifiers[tee as PortableTee](options);
  const { reportData, initDataDigest, trustedAttestationKeys = [], now = new Date(), nonce } = expectations;
  try {
    return await verifier.verify(evidence, {
      ...(reportData === undefined ? {} : { reportData: Buffer.from(reportData) }),
      ...(initDataDigest === undefined ? {} : { initDataDigest: Buffer.from(initDataDigest) }),
      ...(nonce === undefined ? {} : { nonce }),
      trustedAttestationKeys,
      now,
    });
  } catch (thrown) {
    const error = asSealpodError(thrown);
    return { verdict: { check: name, code: error.code, actual: error.message, ...error.detail }, claims: {} };
  }
}

export const verifySnp = (evidence: JsonValue, expectations?: PortableExpectations, snp: SnpOptions = {}) =>
  verifyEvidence('snp', evidence, expectations, { snp });

export const verifyTdx = (evidence: JsonValue, expectations?: PortableExpectations, tdx: TdxOptions = {}) =>
  verifyEvidence('tdx', evidence, expectations, { tdx });

export const verifyTpm = (evidence: JsonValue, expectations?: PortableExpectations, tpm: TpmOptions = {}) =>
  verifyEvidence('tpm', evidence, expectations, { tpm });

function rulesOf(options: SnpOptions): SnpRules {
  const { allowVersion2 = false, requireRevocationList = false, root } = options;
  const rules = snpRules({ sources: [], allowVersion2, requireRevocationList });
  if (root === undefined) return rules;
  const enrolled = onlyRoot(root);
  return { ...rules, root: () => enrolled };
}

function givenCollateral({ versionedKey, revocationList }: SnpOptions): AmdEndorsementSource {
  const given = (bytes: Uint8Array | undefined) => Promise.resolve(bytes && Buffer.from(bytes));
  return {
    name: 'the caller',
    chipKey: () => given(versionedKey),
    revocationList: () => given(revocationList),
  };
}
