import { timingSafeEqual } from 'node:crypto';
import { Algorithm, hashName, ObjectAttribute } from '@sealpod/protocol/tpm';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { Certificate } from '../../endorsements/certificate.ts';
import { type EnrolledRoot, findPath } from '../../endorsements/certificate-path.ts';
import { check } from '../check.ts';
import type { KeyProof, TpmStatement } from './statement.ts';

/** tcg-kp-EKCertificate (TCG EK Credential Profile §3.2.16). */
const ekCertificateUsage = '2.23.133.8.1';

/** The quote key and the key of the activated object must be one. */
export function checkKeysAgree({ attestationKey }: TpmStatement, { publicAreaKey }: KeyProof): Verdict {
  return check('attestation key of one TPM', attestationKey.equals(publicAreaKey), 'EV_PART_MIX', {
    expected: 'ak_public is the key of ak_public_area',
    actual: 'they are different keys',
  });
}

const required = {
  restricted: ObjectAttribute.restricted,
  sign: ObjectAttribute.sign,
  fixedTPM: ObjectAttribute.fixedTpm,
  fixedParent: ObjectAttribute.fixedParent,
  sensitiveDataOrigin: ObjectAttribute.sensitiveDataOrigin,
};

/** A key that signs nothing but what its TPM made, was made inside it and cannot leave it. */
export function checkKeyAttributes({ publicArea }: KeyProof): Verdict {
  const { attributes, scheme, symmetric, nameAlgorithm } = publicArea;
  const wrong = Object.entries(required).flatMap(([name, bit]) => ((attributes & bit) === 0 ? [`no ${name}`] : []));
  if ((attributes & ObjectAttribute.decrypt) !== 0) wrong.push('decrypt');
  const hash = scheme === undefined ? undefined : hashName(scheme.hash);
  if (scheme === undefined || (scheme.algorithm !== Algorithm.ecDsa && scheme.algorithm !== Algorithm.rsaSsa)) {
    wrong.push('no ECDSA or RSASSA scheme');
  }
  if (hash === undefined || hash === 'sha1' || hashName(nameAlgorithm) === 'sha1') wrong.push('a weak hash');
  if (symmetric !== undefined) wrong.push('a symmetric algorithm');
  return check('attestation key attributes', wrong.length === 0, 'EV_AK_UNTRUSTED', {
    expected: 'restricted, sign, fixedTPM, fixedParent, sensitiveDataOrigin, not decrypt',
    actual: wrong.join(', '),
  });
}

/** A valid path of the endorsement key's certificate to an enrolled root. A simulated root wins over others. */
export function checkEndorsementChain(
  endorsement: Certificate,
  roots: readonly EnrolledRoot[],
  now: Date,
): { readonly verdict: Verdict; readonly root?: EnrolledRoot } {
  const name = 'endorsement key certificate chain';
  const usage = endorsementUsageProblem(endorsement);
  if (usage !== undefined) {
    return {
      verdict: check(name, false, 'EV_CERT_CHAIN', { expected: 'a certificate of an endorsement key', actual: usage }),
    };
  }
  const results = roots.map((root) => ({ root, result: findPath(endorsement, root, now) }));
  const valid = results.filter(({ result }) => result.valid).map(({ root }) => root);
  const root = valid.find(({ simulated }) => simulated) ?? valid[0];
  if (root !== undefined) return { verdict: { check: name, code: 'OK', source: `enrolled root ${root.name}` }, root };
  const reasons = results.flatMap(({ result }) => (result.valid ? [] : [result.reason]));
  return {
    verdict: check(name, false, 'EV_CERT_CHAIN', {
      expected: `a path to one of: ${roots.map((candidate) => candidate.name).join(', ') || 'no root is enrolled'}`,
      actual: reasons.join('; ') || 'no path',
      source: 'enrolled roots',
    }),
  };
}

function endorsementUsageProblem({ isAuthority, keyUsage, extendedKeyUsage, x509 }: Certificate): string | undefined {
  if (isAuthority) return 'it is a certificate authority';
  if (extendedKeyUsage !== undefined && !extendedKeyUsage.includes(ekCertificateUsage))
    return 'its extended key usage is another';
  const rsa = x509.publicKey.asymmetricKeyType === 'rsa';
  if (keyUsage === undefined) return 'it has no key usage';
  return (rsa ? keyUsage.keyEncipherment : keyUsage.keyAgreement) ? undefined : 'its key usage is another';
}

/** Whether the TPM of the endorsement key released the secret of this session for this key, in constant time. */
export function activationHolds({ activatedSecret }: KeyProof, expected: Buffer | undefined): boolean {
  return (
    expected !== undefined && activatedSecret.length === expected.length && timingSafeEqual(activatedSecret, expected)
  );
}
