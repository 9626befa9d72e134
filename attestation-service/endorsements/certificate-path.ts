import type { Certificate } from './certificate.ts';

/** A trust anchor set: one vendor or one local authority. */
export interface EnrolledRoot {
  readonly name: string;
  /** True where what the root vouches for is not hardware, e.g. the certificate authority of a software TPM. */
  readonly simulated: boolean;
  readonly anchors: readonly Certificate[];
  readonly intermediates: readonly Certificate[];
}

/** A valid path, or why there is none. */
export type PathResult =
  | { readonly valid: true; readonly path: readonly Certificate[] }
  | { readonly valid: false; readonly reason: string };

const maxPathCertificates = 6;

/**
 * Looks for a path from `leaf` to an anchor of `root` in which every signature, date, authority flag, path length and
 * key usage holds (RFC 5280 §6.1, without name constraints and policies: certificates that make those critical are
 * refused). Revocation is not checked: TPM vendors publish no revocation lists for endorsement keys. A valid path is
 * remembered while all of its dates hold.
 */
export function findPath(leaf: Certificate, root: EnrolledRoot, now: Date): PathResult {
  const known = foundPaths.get(leaf)?.get(root);
  if (known !== undefined && known.from <= now && now <= known.until) return known.result;
  const result = searchPath(leaf, root, now);
  if (result.valid) rememberPath(leaf, root, result);
  return result;
}

/** A path that was found, and while all of its certificates are valid. */
interface FoundPath {
  readonly result: PathResult;
  readonly from: Date;
  readonly until: Date;
}

/** Only valid paths, and only between the same objects: a certificate that differs in one bit is another. */
const foundPaths = new WeakMap<Certificate, WeakMap<EnrolledRoot, FoundPath>>();

function rememberPath(leaf: Certificate, root: EnrolledRoot, result: PathResult & { readonly valid: true }): void {
  const [begins, ends] = [
    result.path.map(({ x509 }) => x509.validFromDate.getTime()),
    result.path.map(({ x509 }) => x509.validToDate.getTime()),
  ];
  const found = { result, from: new Date(Math.max(...begins)), until: new Date(Math.min(...ends)) };
  const ofLeaf = foundPaths.get(leaf) ?? new WeakMap<EnrolledRoot, FoundPath>();
  ofLeaf.set(root, found);
  foundPaths.set(leaf, ofLeaf);
}

function searchPath(leaf: Certificate, root: EnrolledRoot, now: Date): PathResult {
  const problem = usableAt(leaf, now);
  if (problem !== undefined) return { valid: false, reason: problem };
  let reason = `no certificate of root ${root.name} issued it`;
  const extend = (path: readonly Certificate[]): readonly Certificate[] | undefined => {
    const last = path.at(-1);
    if (last === undefined || path.length >= maxPathCertificates) return undefined;
    for (const issuer of [...root.anchors, ...root.intermediates]) {
      if (path.includes(issuer) || !last.x509.checkIssued(issuer.x509)) continue;
      const refusal = issuerProblem(issuer, last, path.length - 1, now);
      if (refusal !== undefined) {
        reason = refusal;
        continue;
      }
      const longer = [...path, issuer];
      if (root.anchors.includes(issuer)) return longer;
      const found = extend(longer);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const path = extend([leaf]);
  return path === undefined ? { valid: false, reason } : { valid: true, path };
}

function issuerProblem(
  issuer: Certificate,
  subject: Certificate,
  intermediatesBelow: number,
  now: Date,
): string | undefined {
  const name = subjectOf(issuer);
  if (!issuer.isAuthority) return `${name} is not a certificate authority`;
  if (issuer.keyUsage !== undefined && !issuer.keyUsage.keyCertSign) return `${name} may not sign certificates`;
  if (issuer.pathLength !== undefined && intermediatesBelow > issuer.pathLength)
    return `${name} permits no path so long`;
  if (!subject.x509.verify(issuer.x509.publicKey)) return `the signature of ${name} does not verify`;
  return usableAt(issuer, now);
}

function usableAt(certificate: Certificate, now: Date): string | undefined {
  const name = subjectOf(certificate);
  if (certificate.unknownCritical.length > 0)
    return `${name} has a critical extension ${certificate.unknownCritical[0]}`;
  if (now < certificate.x509.validFromDate) return `${name} is not valid yet`;
  if (now > certificate.x509.validToDate) return `${name} has expired`;
  return undefined;
}

/** Node gives no subject at all where the name is empty, as in most vendors' endorsement key certificates. */
function subjectOf({ x509 }: Certificate): string {
  return (x509.subject as string | undefined)?.replaceAll('\n', ', ') ?? `certificate ${x509.serialNumber}`;
}
