import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import type { SealpodError } from '@sealpod/protocol/errors';
import { regularise } from '@sealpod/protocol/rcar';
import type { SnpGeneration, SnpReport, SnpTcb } from '@sealpod/protocol/snp';
import { ecdsaP384Sha384 } from '@sealpod/protocol/snp';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { Certificate } from '../../endorsements/certificate.ts';
import { type EnrolledRoot, findPath } from '../../endorsements/certificate-path.ts';
import { isCurrent, revokes } from '../../endorsements/revocation-list.ts';
import { allOf, check } from '../check.ts';
import type { Expectations } from '../verifier.ts';
import type { EndorsementRules, SnpEndorsements } from './endorse.ts';
import type { VersionedKey } from './versioned-key.ts';

/** What the operator decided about SNP reports. */
export interface SnpRules extends EndorsementRules {
  /** Reports of version 2, which do not name their processor, are accepted. */
  readonly allowVersion2: boolean;
  /** Without a current revocation list everything is refused. */
  readonly requireRevocationList: boolean;
}

const newestVersion = 5;

/** Verifies a report against its endorsements: a checklist. */
export function verifySnpReport(
  report: SnpReport,
  endorsements: SnpEndorsements,
  rules: SnpRules,
  expectations: Pick<Expectations, 'reportData' | 'initDataDigest' | 'now'>,
): Verdict {
  const { key, generation } = endorsements;
  return allOf('snp evidence', [
    checkVersion(report, rules),
    checkGeneration(report, generation),
    checkPolicyFormat(report),
    ...(key === undefined || generation === undefined
      ? [missingKey(endorsements)]
      : [
          checkKeyKind(report, key),
          ...checkChain(key, endorsements, rules.root(generation), rules, expectations.now),
          checkSignature(report, key),
          checkChip(report, key, generation),
          checkTcb(report, key),
        ]),
    checkPrivilegeLevel(report),
    checkReportData(report, expectations.reportData),
    checkHostData(report, expectations.initDataDigest),
  ]);
}

function checkVersion({ version }: SnpReport, { allowVersion2 }: SnpRules): Verdict {
  const oldest = allowVersion2 ? 2 : 3;
  return check('report version', version >= oldest && version <= newestVersion, 'EV_FORMAT', {
    expected: `${oldest} to ${newestVersion}`,
    actual: `${version}`,
  });
}

function checkGeneration({ processor }: SnpReport, generation: SnpGeneration | undefined): Verdict {
  const { family, model } = processor;
  return check('processor', generation !== undefined, 'EV_TEE_UNSUPPORTED', {
    expected: 'EPYC of generation Milan, Genoa or Turin',
    actual: `family ${family}, model ${model}`,
  });
}

function checkPolicyFormat({ policy }: SnpReport): Verdict {
  return check('guest policy', policy.reservedOne, 'EV_FORMAT', { expected: 'bit 17 is one', actual: 'zero' });
}

function missingKey({ problems }: SnpEndorsements): Verdict {
  const [problem] = problems;
  return check('certificate of the signing key', false, problem?.code ?? 'EV_CERT_CHAIN', {
    ...(problem === undefined ? { actual: 'none' } : { actual: describe(problem) }),
    expected: 'the certificate of a VCEK or VLEK',
  });
}

function checkKeyKind({ signingKey }: SnpReport, { kind }: VersionedKey): Verdict {
  return check('signing key', signingKey === kind, 'EV_PART_MIX', {
    expected: `a report signed by the ${kind} whose certificate came`,
    actual: `the report says ${signingKey}`,
  });
}

/** Names of the authorities that issue certificates of versioned keys: one for each kind. */
const issuerNames = { VCEK: /(?:^|\n)CN=SEV-(?!VLEK)\w+(?:\n|$)/, VLEK: /(?:^|\n)CN=SEV-VLEK-\w+(?:\n|$)/ };

const issues = (kind: VersionedKey['kind'], { x509 }: Certificate): boolean => issuerNames[kind].test(x509.subject);

/** A root with the intermediates of one kind only; the same object each time, so that paths to it are found again. */
function rootOf(root: EnrolledRoot, kind: VersionedKey['kind']): EnrolledRoot {
  const known = rootsOfKind[kind].get(root);
  if (known !== undefined) return known;
  const ofKind = { ...root, intermediates: root.intermediates.filter((authority) => issues(kind, authority)) };
  rootsOfKind[kind].set(root, ofKind);
  return ofKind;
}

const rootsOfKind = {
  VCEK: new WeakMap<EnrolledRoot, EnrolledRoot>(),
  VLEK: new WeakMap<EnrolledRoot, EnrolledRoot>(),
};

function checkChain(
  { certificate, kind }: VersionedKey,
  { authorities, revocationList, rollback, problems }: SnpEndorsements,
  root: EnrolledRoot,
  { requireRevocationList }: SnpRules,
  now: Date,
): Verdict[] {
  const own = rootOf(root, kind);
  const sent = authorities.filter((authority) => issues(kind, authority));
  const extended = sent.length === 0 ? own : { ...own, intermediates: [...own.intermediates, ...sent] };
  const result = findPath(certificate, extended, now);
  const path = result.valid ? result.path : [];
  const current = revocationList !== undefined && isCurrent(revocationList, now);
  const revoked = path.find((member) => revocationList !== undefined && revokes(revocationList, member));
  return [
    check('certificate chain', result.valid, 'EV_CERT_CHAIN', {
      expected: `a valid path to the root of ${root.name}`,
      actual: result.valid ? 'a path' : result.reason,
      source: root.name,
    }),
    checkAuthorities(authorities, root, now),
    ...(revocationList === undefined && !requireRevocationList
      ? []
      : [
          check(
            'revocation list',
            rollback === undefined && (current || !requireRevocationList),
            rollback?.code ??
              (revocationList === undefined
                ? (problems[0]?.code ?? 'EV_COLLATERAL_UNAVAILABLE')
                : 'EV_COLLATERAL_EXPIRED'),
            {
              expected: 'a current list of the root, and none older than one that was seen before',
              actual: rollback
                ? describe(rollback)
                : revocationList === undefined
                  ? `none: ${problems.map(describe).join('; ') || 'no source has one'}`
                  : `one until ${revocationList.nextUpdate?.toISOString() ?? 'any time'}`,
            },
          ),
          check('revocation', revoked === undefined, 'EV_CERT_REVOKED', {
            expected: 'no revoked certificate',
            actual: revoked?.x509.subject.replaceAll('\n', ', ') ?? '',
          }),
        ]),
  ];
}

/** Authorities that came along are not needed, but a wrong one says that the evidence was tampered with. */
function checkAuthorities(authorities: readonly Certificate[], root: EnrolledRoot, now: Date): Verdict {
  const isAnchor = ({ x509 }: Certificate): boolean => root.anchors.some((anchor) => anchor.x509.raw.equals(x509.raw));
  const wrong = authorities.find((authority) => !isAnchor(authority) && !findPath(authority, root, now).valid);
  return check('authorities in the evidence', wrong === undefined, 'EV_CERT_CHAIN', {
    expected: `certificates of ${root.name}`,
    actual: wrong?.x509.subject.replaceAll('\n', ', ') ?? '',
  });
}

/** A key out of a certificate has no details in every release of Node; one made from its bytes has. */
function signingKeyOf(certificate: Certificate): KeyObject {
  const known = signingKeys.get(certificate);
  if (known !== undefined) return known;
  const key = createPublicKey(certificate.x509.publicKey.export({ format: 'pem', type: 'spki' }));
  signingKeys.set(certificate, key);
  return key;
}

const signingKeys = new WeakMap<Certificate, KeyObject>();

function checkSignature({ signatureAlgorithm, signed, signature }: SnpReport, { certificate }: VersionedKey): Verdict {
  const publicKey = signingKeyOf(certificate);
  const suitable = signatureAlgorithm === ecdsaP384Sha384 && publicKey.asymmetricKeyDetails?.namedCurve === 'secp384r1';
  const holds = suitable && verify('sha384', signed, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature);
  return check('report signature', holds, 'EV_SIGNATURE', {
    expected: 'ECDSA P-384 with SHA-384 by the certified key',
    actual: suitable ? 'it does not verify' : `signature algorithm ${signatureAlgorithm}`,
  });
}

/** A VCEK is one chip's, so the report has to name that chip; a VLEK is not. */
function checkChip({ chipId }: SnpReport, { hardwareId, kind }: VersionedKey, generation: SnpGeneration): Verdict {
  if (kind === 'VLEK') {
    return check('chip id', hardwareId === undefined, 'EV_CERT_CHAIN', {
      expected: 'no chip in a VLEK',
      actual: 'one',
    });
  }
  // Turin's ids are eight bytes; the certificate may hold just these, the report has zeros after them.
  const significant = generation === 'Turin' && hardwareId?.length === 8 ? regularise(hardwareId, 64) : hardwareId;
  return check('chip id', significant?.equals(chipId) === true, 'EV_PART_MIX', {
    expected: hardwareId?.toString('hex') ?? 'a chip id in the certificate',
    actual: chipId.toString('hex'),
    source: 'certificate of the VCEK',
  });
}

function checkTcb({ reportedTcb }: SnpReport, { tcb }: VersionedKey): Verdict {
  const parts = ['fmc', 'bootloader', 'tee', 'snp', 'microcode'] as const satisfies readonly (keyof SnpTcb)[];
  const text = (versions: SnpTcb): string =>
    parts.flatMap((part) => (versions[part] === undefined ? [] : [`${part} ${versions[part]}`])).join(', ');
  // Certificates before Turin have no fmc; the report's layout of that generation has none either.
  const equal = parts.every((part) => reportedTcb[part] === tcb[part]);
  return check('reported TCB', equal, 'EV_PART_MIX', {
    expected: text(tcb),
    actual: text(reportedTcb),
    source: 'certificate of the signing key',
  });
}

function checkPrivilegeLevel({ vmpl }: SnpReport): Verdict {
  return check('privilege level', vmpl === 0, 'EV_VMPL', { expected: 'VMPL 0', actual: `VMPL ${vmpl}` });
}

function checkReportData({ reportData }: SnpReport, expected: Buffer | undefined): Verdict {
  const field = expected && regularise(expected, 64);
  return check('report data', field === undefined || field.equals(reportData), 'EV_BINDING_MISMATCH', {
    expected: field?.toString('hex') ?? '',
    actual: reportData.toString('hex'),
    source: 'digest of nonce and tee-pubkey',
  });
}

function checkHostData({ hostData }: SnpReport, expected: Buffer | undefined): Verdict {
  const field = expected && regularise(expected, 32);
  return check('host data', field === undefined || field.equals(hostData), 'INITDATA_DIGEST', {
    expected: field?.toString('hex') ?? '',
    actual: hostData.toString('hex'),
    source: 'initdata',
  });
}

function describe({ message, detail }: SealpodError): string {
  return detail.actual === undefined ? message : `${message}: ${detail.actual}`;
}
