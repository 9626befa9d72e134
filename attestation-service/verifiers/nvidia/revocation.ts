import { asSealpodError } from '@sealpod/protocol/errors';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { Certificate } from '../../endorsements/certificate.ts';
import type { PathResult } from '../../endorsements/certificate-path.ts';
import type { RevocationStatus } from '../../endorsements/ocsp.ts';
import { allOf, check } from '../check.ts';

/** Asks whether `subject`, which `issuer` issued, is revoked. */
export type AskRevocation = (subject: Certificate, issuer: Certificate, now: Date) => Promise<RevocationStatus>;

/**
 * Every certificate of a verified chain but its root is asked for. `first` is where to begin: the key of a device's report is made
 * anew at each start, so that no responder knows it.
 */
export async function checkRevocation(
  name: string,
  chain: PathResult,
  first: number,
  ask: AskRevocation,
  now: Date,
): Promise<Verdict> {
  // A chain that is no path was refused already.
  const path = chain.valid ? chain.path : [];
  const pairs = path.slice(first, -1).map((subject, index) => [subject, path[first + index + 1]] as const);
  const verdicts = pairs.map(async ([subject, issuer]): Promise<Verdict> => {
    const what = `revocation of ${subject.x509.subject.replaceAll('\n', ', ')}`;
    if (issuer === undefined) return check(what, false, 'EV_CERT_CHAIN', { actual: 'no issuer' });
    try {
      const { status, reason } = await ask(subject, issuer, now);
      const revoked = status === 'revoked';
      return check(what, status === 'good', revoked ? 'EV_CERT_REVOKED' : 'EV_COLLATERAL_UNAVAILABLE', {
        expected: 'good',
        actual: reason === undefined ? status : `${status}, reason ${reason}`,
        source: 'OCSP',
      });
    } catch (thrown) {
      const { code, message, detail } = asSealpodError(thrown);
      return { check: what, code, ...detail, actual: `${message}: ${detail.actual ?? ''}` };
    }
  });
  return allOf(name, await Promise.all(verdicts));
}
