import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { SnpCertificate, SnpGeneration, SnpReport } from '@sealpod/protocol/snp';
import { snpGenerations } from '@sealpod/protocol/snp';
import type { AmdEndorsementSource } from '../../endorsements/amd/source.ts';
import { type Certificate, parseCertificate, parsePemCertificates } from '../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import { listOrder, type RevocationList, readRevocationList } from '../../endorsements/revocation-list.ts';
import type { SeenBefore } from '../../endorsements/seen-before.ts';
import { parseVersionedKey, type VersionedKey } from './versioned-key.ts';

/** What endorsements are held against. */
export interface EndorsementRules {
  /** The root of a generation. */
  readonly root: (generation: SnpGeneration) => EnrolledRoot;
  /** Remembers the newest revocation lists. Without it an older one that is still current passes. */
  readonly seen?: Pick<SeenBefore, 'check'>;
}

/** What a report is verified with. Nothing of it is verified yet but the signature of the revocation list. */
export interface SnpEndorsements {
  /** Undefined for a processor that is not known here. */
  readonly generation?: SnpGeneration;
  readonly key?: VersionedKey;
  /** Certificates of authorities that came with the evidence. */
  readonly authorities: readonly Certificate[];
  readonly revocationList?: RevocationList;
  /** Why the list cannot be the newest. */
  readonly rollback?: SealpodError;
  /** Why something is missing. */
  readonly problems: readonly SealpodError[];
}

/**
 * Collects the certificates for a report: those that came along, else those that the sources have, in their order.
 * What a source does not answer is a problem for the verdict, not an exception.
 *
 * @throws SealpodError EV_FORMAT for certificates in the evidence that cannot be parsed
 */
export async function endorse(
  report: SnpReport,
  certificates: readonly SnpCertificate[],
  sources: readonly AmdEndorsementSource[],
  { root, seen }: EndorsementRules,
  now: Date,
): Promise<SnpEndorsements> {
  const problems: SealpodError[] = [];
  const sent = sentKey(report, certificates);
  const generation = report.version < 3 ? sent && generationOfKey(sent) : report.generation;
  const key = sent ?? (generation && (await fetchKey(report, generation, sources, problems)));
  const revocationList = generation && (await fetchRevocationList(generation, root(generation), sources, problems));
  const rollback = generation && revocationList && seen && (await rollbackOf(generation, revocationList, seen, now));
  return {
    ...(generation === undefined ? {} : { generation }),
    ...(key === undefined ? {} : { key }),
    ...(revocationList === undefined ? {} : { revocationList }),
    ...(rollback === undefined ? {} : { rollback }),
    authorities: certificates
      .filter(({ type }) => ['ARK', 'ASK', 'ASVK'].includes(type))
      .map(({ bytes }) => parseAny(bytes)),
    problems,
  };
}

/** The certificate of the key that the report says has signed it; else of the other kind, which is then refused by name. */
function sentKey({ signingKey }: SnpReport, certificates: readonly SnpCertificate[]): VersionedKey | undefined {
  const wanted = signingKey === 'VLEK' ? ['VLEK', 'VCEK'] : ['VCEK', 'VLEK'];
  const [found] = wanted.flatMap((kind) => certificates.filter(({ type }) => type === kind));
  return found && parseVersionedKey(found.bytes);
}

/** Reports of version 2 do not name their processor; the issuer of the key's certificate does. */
function generationOfKey({ certificate }: VersionedKey): SnpGeneration | undefined {
  const name = /(?:^|\n)CN=SEV-(?:VLEK-)?(\w+)(?:\n|$)/.exec(certificate.x509.issuer)?.[1];
  return snpGenerations.find((generation) => generation === name);
}

async function fetchKey(
  report: SnpReport,
  generation: SnpGeneration,
  sources: readonly AmdEndorsementSource[],
  problems: SealpodError[],
): Promise<VersionedKey | undefined> {
  if (report.signingKey !== 'VCEK' || report.chipId.every((byte) => byte === 0)) {
    const reason =
      report.signingKey === 'VCEK'
        ? 'the report does not name its chip (it is masked)'
        : `it is signed by ${report.signingKey}`;
    problems.push(
      new SealpodError('EV_CERT_CHAIN', 'no source has the certificate of the key that signed the report', {
        expected: 'the certificate in the evidence',
        actual: reason,
      }),
    );
    return undefined;
  }
  const request = { generation, chipId: report.chipId, tcb: report.reportedTcb };
  const bytes = await firstOf(sources, problems, (source) => source.chipKey(request));
  if (bytes === undefined && problems.length === 0) {
    problems.push(
      new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'no source has the certificate of this chip at this TCB', {
        expected: `one of: ${sources.map(({ name }) => name).join(', ') || 'no source is configured'}`,
        actual: `chip ${report.chipId.toString('hex')}, reported TCB ${JSON.stringify(report.reportedTcb)}`,
      }),
    );
  }
  return bytes && parseVersionedKey(bytes);
}

async function fetchRevocationList(
  generation: SnpGeneration,
  { anchors }: EnrolledRoot,
  sources: readonly AmdEndorsementSource[],
  problems: SealpodError[],
): Promise<RevocationList | undefined> {
  const [anchor] = anchors;
  const bytes = await firstOf(sources, problems, (source) => source.revocationList(generation));
  if (bytes === undefined || anchor === undefined) return undefined;
  try {
    return readRevocationList(bytes, anchor);
  } catch (thrown) {
    problems.push(asSealpodError(thrown));
    return undefined;
  }
}

/** Why a list is not the newest that was ever seen, or why that cannot be told. */
async function rollbackOf(
  generation: SnpGeneration,
  list: RevocationList,
  seen: Pick<SeenBefore, 'check'>,
  now: Date,
): Promise<SealpodError | undefined> {
  // A list from the future tells nothing of the past, and must not make the present one look old.
  if (list.thisUpdate > now) return undefined;
  return seen.check(`crl/${generation}`, listOrder(list), `the revocation list of ${generation}`).then(
    () => undefined,
    (thrown: unknown) => asSealpodError(thrown),
  );
}

async function firstOf(
  sources: readonly AmdEndorsementSource[],
  problems: SealpodError[],
  ask: (source: AmdEndorsementSource) => Promise<Buffer | undefined>,
): Promise<Buffer | undefined> {
  const failed: SealpodError[] = [];
  for (const source of sources) {
    try {
      const bytes = await ask(source);
      if (bytes !== undefined) return bytes;
    } catch (thrown) {
      failed.push(asSealpodError(thrown));
    }
  }
  problems.push(...failed);
  return undefined;
}

function parseAny(bytes: Buffer): Certificate {
  if (bytes[0] === 0x30) return parseCertificate(bytes);
  const [certificate] = parsePemCertificates(bytes.toString('latin1'));
  if (certificate === undefined) throw new SealpodError('EV_FORMAT', 'no certificate in the PEM text');
  return certificate;
}
