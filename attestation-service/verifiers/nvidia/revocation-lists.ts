import { AsnConvert } from '@peculiar/asn1-schema';
import { CRLDistributionPoints } from '@peculiar/asn1-x509';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { Certificate } from '../../endorsements/certificate.ts';
import type { PathResult } from '../../endorsements/certificate-path.ts';
import type { NvidiaListSource } from '../../endorsements/nvidia/revocation-lists.ts';
import {
  isCurrent,
  isListed,
  listOrder,
  type RevocationList,
  readRevocationList,
} from '../../endorsements/revocation-list.ts';
import type { SeenBefore } from '../../endorsements/seen-before.ts';
import { allOf, check } from '../check.ts';

const distributionPoints = '2.5.29.31';

/** Where NVIDIA's revocation lists come from, in the order in which they are asked, and what remembers the newest of each. */
export interface RevocationListRules {
  readonly sources: readonly NvidiaListSource[];
  readonly seen: Pick<SeenBefore, 'check'>;
}

/**
 * Holds every certificate of a verified path that names a distribution point against the list of its issuer, which has to be
 * current. NVIDIA's own certificates name one (of a device: those of its family and of whoever provisioned it; of a manifest: its
 * signer and the authority above); the certificates that a device makes for its own keys name none, and have no list.
 */
export async function checkLists(
  name: string,
  chain: PathResult,
  rules: RevocationListRules,
  now: Date,
): Promise<Verdict> {
  // A chain that is no path was refused already.
  const path = chain.valid ? chain.path : [];
  const pairs = path.slice(0, -1).map((subject, index) => [subject, path[index + 1]] as const);
  const verdicts = pairs.map(async ([subject, issuer]): Promise<Verdict[]> => {
    const what = `revocation list for ${subject.x509.subject.replaceAll('\n', ', ')}`;
    try {
      const point = distributionPoint(subject);
      if (point === undefined || issuer === undefined) return [];
      const list = await currentList(point, issuer, rules, now);
      return [
        check(what, !isListed(list, subject), 'EV_CERT_REVOKED', {
          expected: 'a certificate that is not in the list',
          actual: `serial number ${subject.x509.serialNumber}`,
          source: point,
        }),
      ];
    } catch (thrown) {
      const { code, message, detail } = asSealpodError(thrown);
      return [{ check: what, code, ...detail, actual: `${message}: ${detail.actual ?? ''}` }];
    }
  });
  return allOf(name, (await Promise.all(verdicts)).flat());
}

/** The path of the first address that a certificate names. @throws SealpodError EV_FORMAT for one that is no such path */
function distributionPoint({ extensions }: Certificate): string | undefined {
  const value = extensions.get(distributionPoints);
  if (value === undefined) return undefined;
  const [address] = addressesOf(value).filter((text) => /^https?:/.test(text));
  const path = address !== undefined && URL.canParse(address) ? new URL(address).pathname : '';
  if (!/^(?:\/[A-Za-z0-9_-]+)*\/[A-Za-z0-9_.-]+\.crl$/.test(path))
    throw new SealpodError('EV_FORMAT', 'a certificate names no usable distribution point of revocation lists', {
      expected: 'an address that ends in a file .crl',
      actual: (address ?? 'none').slice(0, 128),
    });
  return path;
}

function addressesOf(value: Buffer): string[] {
  try {
    return Array.from(AsnConvert.parse(value, CRLDistributionPoints)).flatMap(({ distributionPoint: point }) =>
      (point?.fullName ?? []).flatMap(({ uniformResourceIdentifier }) => uniformResourceIdentifier ?? []),
    );
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'malformed distribution points in a certificate', { cause });
  }
}

/** The list of the first source that has one that verifies, is current and not older than one seen before; else why there is none. */
async function currentList(
  point: string,
  issuer: Certificate,
  { sources, seen }: RevocationListRules,
  now: Date,
): Promise<RevocationList> {
  let problem = new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'no source has the revocation list', {
    expected: `one of: ${sources.map(({ name }) => name).join(', ')}`,
    actual: point,
  });
  for (const source of sources) {
    try {
      const der = await source.list(point);
      if (der === undefined) continue;
      const list = readRevocationList(der, issuer);
      if (isCurrent(list, now)) {
        await seen.check(`crl/${issuer.x509.fingerprint256}`, listOrder(list), `the revocation list at ${point}`);
        return list;
      }
      problem = new SealpodError('EV_COLLATERAL_EXPIRED', 'a revocation list is not current', {
        expected: now.toISOString(),
        actual: `${point} from ${list.thisUpdate.toISOString()} to ${list.nextUpdate?.toISOString() ?? 'any time'}`,
        source: source.name,
      });
    } catch (thrown) {
      problem = asSealpodError(thrown);
    }
  }
  throw problem;
}
