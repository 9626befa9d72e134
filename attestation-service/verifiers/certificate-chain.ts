import type { Verdict } from '@sealpod/protocol/verdict';
import type { Certificate } from '../endorsements/certificate.ts';
import { type EnrolledRoot, findPath, type PathResult } from '../endorsements/certificate-path.ts';
import { check } from './check.ts';

/** The path of a chain that came with evidence, leaf first, to an anchor of `root`. */
export function sentPath([leaf, ...authorities]: readonly Certificate[], root: EnrolledRoot, now: Date): PathResult {
  if (leaf === undefined) return { valid: false, reason: 'no certificate' };
  const intermediates = [...root.intermediates, ...authorities.filter((authority) => !isAnchor(authority, root))];
  return findPath(leaf, { ...root, intermediates }, now);
}

/** Every certificate that came has to be of the path: another one says that evidence was put together. */
export function checkSentChain(certificates: readonly Certificate[], root: EnrolledRoot, now: Date): Verdict {
  const result = sentPath(certificates, root, now);
  const path = result.valid ? result.path : [];
  const strange = certificates.find((certificate) => !path.includes(certificate) && !isAnchor(certificate, root));
  return check('certificate chain', result.valid && strange === undefined, 'EV_CERT_CHAIN', {
    expected: `a valid path to the root of ${root.name}`,
    actual: result.valid
      ? `a certificate that is not of the path: ${strange?.x509.subject.replaceAll('\n', ', ')}`
      : result.reason,
    source: root.name,
  });
}

function isAnchor({ x509 }: Certificate, { anchors }: EnrolledRoot): boolean {
  return anchors.some((anchor) => anchor.x509.raw.equals(x509.raw));
}
