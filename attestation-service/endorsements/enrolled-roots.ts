import { SealpodError } from '@sealpod/protocol/errors';
import { parsePemCertificates } from './certificate.ts';
import type { EnrolledRoot } from './certificate-path.ts';

/** Configuration of one root. */
export interface RootConfiguration {
  /** Shown in claims and explanations, e.g. `local-swtpm`. */
  readonly name: string;
  /** PEM text: at least one self-signed certificate, and intermediates that no guest sends. */
  readonly certificates: string;
  /** Whether TPMs below it are software. Claims then say `simulated`. */
  readonly simulated: boolean;
}

/**
 * Reads enrolled roots. Only a self-signed certificate becomes an anchor, so that an intermediate in the same file
 * cannot become one by accident.
 *
 * @throws SealpodError USAGE naming the root that is unusable
 */
export function enrolRoots(configurations: readonly RootConfiguration[]): EnrolledRoot[] {
  const names = new Set<string>();
  return configurations.map(({ name, certificates, simulated }) => {
    if (name === '' || names.has(name))
      throw new SealpodError('USAGE', 'each enrolled root needs a name of its own', { actual: name });
    names.add(name);
    try {
      const parsed = parsePemCertificates(certificates);
      const selfSigned = ({ x509 }: (typeof parsed)[number]): boolean =>
        x509.checkIssued(x509) && x509.verify(x509.publicKey);
      const anchors = parsed.filter(selfSigned);
      if (anchors.length === 0) throw new RangeError('none of its certificates is self-signed');
      return {
        name,
        simulated,
        anchors,
        intermediates: parsed.filter((certificate) => !anchors.includes(certificate)),
      };
    } catch (cause) {
      throw new SealpodError('USAGE', `enrolled root ${name} is unusable`, {
        cause,
        actual: cause instanceof Error ? cause.message : String(cause),
      });
    }
  });
}
