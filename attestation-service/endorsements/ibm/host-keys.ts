import { createHash, type KeyObject } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Certificate } from '../certificate.ts';
import { type EnrolledRoot, findPath } from '../certificate-path.ts';
import { isCurrent, isListed, type RevocationList, readRevocationList } from '../revocation-list.ts';

/** What host key documents are verified with. */
export interface HostKeyTrust {
  readonly root: EnrolledRoot;
  /** Certificates of IBM's signing keys and of the authorities above them. */
  readonly certificates: readonly Certificate[];
  /** DER. */
  readonly revocationLists: readonly Buffer[];
}

/** The public key of one machine, verified. */
export interface HostKey {
  readonly key: KeyObject;
  /** SHA-256 over the coordinates as the Ultravisor pads them: how additional data names the key. */
  readonly hash: Buffer;
}

const coordinateBytes = 80;

/**
 * Verifies a host key document (IBM: "Verifying the host key document"): signed by a key of IBM's signing service, which
 * chains to the root; within its dates; not revoked by a current list of that key, without which it is refused.
 *
 * @throws SealpodError EV_CERT_CHAIN, EV_CERT_REVOKED, EV_COLLATERAL_UNAVAILABLE
 */
export function verifyHostKeyDocument(document: Certificate, trust: HostKeyTrust, now: Date): HostKey {
  const signingKey = findSigningKey(document, trust);
  checkSigningKey(signingKey, trust, now);
  checkDates(document, now);
  const lists = currentLists(signingKey, trust, now);
  if (lists.length === 0) {
    throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'no current revocation list for host key documents', {
      expected: `a list of ${nameOf(signingKey)}`,
      actual: `${trust.revocationLists.length} lists, none of them its and current`,
    });
  }
  if (lists.some((list) => isListed(list, document)))
    throw new SealpodError('EV_CERT_REVOKED', 'a host key document has been revoked', { actual: nameOf(document) });
  return { key: document.x509.publicKey, hash: hostKeyHash(document.x509.publicKey) };
}

/** SHA-256 over both coordinates, each padded to 80 bytes. @throws SealpodError EV_CERT_CHAIN for a key that is not on P-521 */
function hostKeyHash(key: KeyObject): Buffer {
  return createHash('sha256').update(ultravisorPoint(key)).digest();
}

/** The coordinates of a key on P-521 as the Ultravisor expects them: 160 bytes. @throws SealpodError EV_CERT_CHAIN */
export function ultravisorPoint(key: KeyObject): Buffer {
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'secp521r1')
    throw new SealpodError('EV_CERT_CHAIN', 'the key of a host key document is of another kind', {
      expected: 'EC P-521',
    });
  const { x = '', y = '' } = key.export({ format: 'jwk' });
  const point = Buffer.alloc(2 * coordinateBytes);
  for (const [index, text] of [x, y].entries()) {
    const coordinate = Buffer.from(text, 'base64url');
    coordinate.copy(point, (index + 1) * coordinateBytes - coordinate.length);
  }
  return point;
}

/** The subject of IBM's signing keys; their town has been both. */
const signerNames: readonly (readonly [attribute: string, pattern: RegExp])[] = [
  ['C', /^US$/],
  ['ST', /^New York$/],
  ['L', /^(Poughkeepsie|Armonk)$/],
  ['O', /^International Business Machines Corporation$/],
  ['CN', /^International Business Machines Corporation$/],
  ['OU', /Key Signing Service$/],
];

function attributes(name: string): [string, string][] {
  return name.split('\n').map((line) => {
    const at = line.indexOf('=');
    return [line.slice(0, at), line.slice(at + 1)];
  });
}

function isSigningKey({ x509 }: Certificate): boolean {
  // Node gives no subject at all where the name is empty.
  const subject = attributes((x509.subject as string | undefined) ?? '');
  return (
    subject.length === signerNames.length &&
    signerNames.every(([name, pattern]) =>
      subject.some(([attribute, value]) => attribute === name && pattern.test(value)),
    )
  );
}

/** The signing key whose signature the document has. Names are compared as sets, as IBM's own tool does: orders differ. */
function findSigningKey(document: Certificate, { certificates }: HostKeyTrust): Certificate {
  const names = (text: string): string =>
    text
      .split('\n')
      .map((line) => line.replace(/^L=.*/, 'L'))
      .sort()
      .join('\n');
  const issuer = names(document.x509.issuer);
  const found = certificates.find(
    (candidate) =>
      isSigningKey(candidate) &&
      names(candidate.x509.subject) === issuer &&
      document.x509.verify(candidate.x509.publicKey),
  );
  if (found !== undefined) return found;
  throw new SealpodError('EV_CERT_CHAIN', 'no signing key of IBM has signed a host key document', {
    expected: 'a certificate of the Key Signing Service whose signature verifies',
    actual: `issuer ${document.x509.issuer.replaceAll('\n', ', ')}`,
  });
}

function checkSigningKey(
  signingKey: Certificate,
  { root, certificates, revocationLists }: HostKeyTrust,
  now: Date,
): void {
  const result = findPath(
    signingKey,
    { ...root, intermediates: [...root.intermediates, ...certificates.filter((one) => one !== signingKey)] },
    now,
  );
  if (!result.valid || result.path.length < 3) {
    throw new SealpodError('EV_CERT_CHAIN', 'the signing key of host key documents does not chain to the root', {
      expected: `a valid path by way of an authority to ${root.name}`,
      actual: result.valid ? 'a path without an authority between' : result.reason,
    });
  }
  for (const [index, member] of result.path.entries()) {
    const issuer = result.path[index + 1];
    if (issuer === undefined) continue;
    if (listsOf(issuer, revocationLists).some((list) => isListed(list, member)))
      throw new SealpodError('EV_CERT_REVOKED', 'the signing key of host key documents has been revoked', {
        actual: nameOf(member),
      });
  }
}

function checkDates(document: Certificate, now: Date): void {
  const { validFromDate, validToDate } = document.x509;
  if (now >= validFromDate && now <= validToDate && document.unknownCritical.length === 0) return;
  throw new SealpodError('EV_CERT_CHAIN', 'a host key document is not valid now', {
    expected: `${validFromDate.toISOString()} to ${validToDate.toISOString()}`,
    actual: document.unknownCritical[0] ?? now.toISOString(),
  });
}

function currentLists(signingKey: Certificate, { revocationLists }: HostKeyTrust, now: Date): RevocationList[] {
  return listsOf(signingKey, revocationLists).filter((list) => list.nextUpdate !== undefined && isCurrent(list, now));
}

/** Lists that `issuer` has signed. IBM's signing keys sign theirs without a key usage that says so. */
function listsOf(issuer: Certificate, lists: readonly Buffer[]): RevocationList[] {
  const { keyUsage: _, ...signer } = issuer;
  return lists.flatMap((der) => {
    try {
      return [readRevocationList(der, signer)];
    } catch (thrown) {
      // Lists of all issuers lie in one folder: one that another signed is not this one's.
      if (thrown instanceof SealpodError && thrown.code === 'EV_SIGNATURE') return [];
      throw thrown;
    }
  });
}

function nameOf({ x509 }: Certificate): string {
  return `${x509.subject.replaceAll('\n', ', ')} (${x509.serialNumber})`;
}
