import { SealpodError } from '@sealpod/protocol/errors';
import type { Certificate } from './certificate.ts';
import { type EnrolledRoot, findPath } from './certificate-path.ts';

/** A path whose signatures and authority hold, and when all of its certificates are valid. */
export interface VerifiedChain {
  /** From the end certificate to the anchor. */
  readonly path: readonly Certificate[];
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/**
 * Finds the path of a certificate to a root. Dates are left to the caller, who compares them each time that the path is
 * relied on: so a path may be kept, and what expired can be told from what never held.
 *
 * @throws SealpodError EV_CERT_CHAIN
 */
export function verifyChain(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  root: EnrolledRoot,
  now: Date,
): VerifiedChain {
  const candidates = intermediates.filter(({ x509 }) => x509.subject !== x509.issuer);
  const window = validity([leaf, ...candidates, ...root.anchors]);
  const at = new Date(Math.min(Math.max(now.getTime(), window.notBefore.getTime()), window.notAfter.getTime()));
  const result = findPath(leaf, { ...root, intermediates: [...root.intermediates, ...candidates] }, at);
  if (result.valid) return { path: result.path, ...validity(result.path) };
  throw new SealpodError('EV_CERT_CHAIN', 'a certificate does not chain to its root', {
    expected: `a valid path to the root of ${root.name}`,
    actual: result.reason,
    source: root.name,
  });
}

/** Whether all certificates of a chain are valid at a time. */
export function isValidAt({ notBefore, notAfter }: VerifiedChain, now: Date): boolean {
  return notBefore <= now && now <= notAfter;
}

function validity(certificates: readonly Certificate[]): { readonly notBefore: Date; readonly notAfter: Date } {
  const from = certificates.map(({ x509 }) => x509.validFromDate.getTime());
  const to = certificates.map(({ x509 }) => x509.validToDate.getTime());
  return { notBefore: new Date(Math.max(...from)), notAfter: new Date(Math.min(...to)) };
}
