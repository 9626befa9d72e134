import { createHash, createPublicKey, type KeyObject, timingSafeEqual, verify } from 'node:crypto';
import type { Quote } from '@sealpod/protocol/dcap';
import type { SealpodError } from '@sealpod/protocol/errors';
import type { Verdict } from '@sealpod/protocol/verdict';
import { findPath } from '../../endorsements/certificate-path.ts';
import type { Collateral } from '../../endorsements/intel/collateral.ts';
import { isCurrentDocument, type Verified } from '../../endorsements/intel/signed-document.ts';
import type { EnclaveIdentity, SignedFor, TcbInfo } from '../../endorsements/intel/tcb-info.ts';
import { isCurrent, isListed, type RevocationList } from '../../endorsements/revocation-list.ts';
import { isValidAt, type VerifiedChain } from '../../endorsements/verified-chain.ts';
import { check } from '../check.ts';
import type { DcapEndorsements, DcapRules } from './endorse.ts';
import { enclaveLevel, moduleIdentityOf } from './tcb-status.ts';

/**
 * Verifies a quote against its endorsements: a checklist (Intel SGX ECDSA QuoteLib, quote verification; TDX likewise). What
 * the TCB is worth is judged apart, see `judgeTcb`.
 */
export function verifyQuote(
  quote: Quote,
  endorsements: DcapEndorsements,
  rules: DcapRules,
  now: Date,
): readonly Verdict[] {
  const { pck, tcbInfo, qeIdentity } = endorsements;
  return [
    checkVendor(quote),
    checkQuoteSignature(quote),
    checkAttestationKey(quote),
    checkEnclaveSignature(quote, pck.certificate.x509.publicKey),
    ...checkChain(endorsements, rules, now),
    ...document('TCB info', tcbInfo, rules, now, (info) => [
      check('platform of the TCB info', pck.fmspc.equals(info.fmspc) && pck.pceId.equals(info.pceId), 'EV_PART_MIX', {
        expected: `fmspc ${info.fmspc.toString('hex')}, pceid ${info.pceId.toString('hex')}`,
        actual: `fmspc ${pck.fmspc.toString('hex')}, pceid ${pck.pceId.toString('hex')}`,
      }),
      ...checkModule(quote, info),
    ]),
    ...document('identity of the quoting enclave', qeIdentity, rules, now, (identity) => [
      checkEnclave(quote, identity),
    ]),
  ];
}

/** Intel's own quoting enclaves; quotes of others have the same form, and no collateral of Intel's speaks of them. */
const intelVendorId = '939a7233f79c4ca9940a0db3957f0607';

/** As Intel's library validates a header: of its vendor, and in version 3 with zeros where later ones name the TEE. */
function checkVendor({ header: { version, teeType, vendorId } }: Quote): Verdict {
  const vendor = vendorId.toString('hex');
  return check(
    'vendor of the quote',
    vendor === intelVendorId && (version > 3 || teeType === 0),
    'EV_TEE_UNSUPPORTED',
    {
      expected: `a quote of Intel's, ${intelVendorId}`,
      actual: version > 3 || teeType === 0 ? vendor : `version 3 with TEE type ${teeType}`,
      source: 'header of the quote',
    },
  );
}

function checkQuoteSignature({ attestationKey, signed, signature }: Quote): Verdict {
  const key = pointKey(attestationKey);
  const holds = key !== undefined && isSigned(signed, key, signature);
  return check('quote signature', holds, 'EV_SIGNATURE', {
    expected: 'a signature of the attestation key',
    actual: key === undefined ? 'the attestation key is no point of P-256' : 'it does not verify',
  });
}

function checkAttestationKey({ attestationKey, qe: { report, authenticationData } }: Quote): Verdict {
  const expected = Buffer.alloc(64);
  createHash('sha256').update(attestationKey).update(authenticationData).digest().copy(expected);
  return check('attestation key', timingSafeEqual(expected, report.reportData), 'EV_AK_UNTRUSTED', {
    expected: expected.toString('hex'),
    actual: report.reportData.toString('hex'),
    source: 'report data of the quoting enclave',
  });
}

function checkEnclaveSignature({ qe }: Quote, key: KeyObject): Verdict {
  return check(
    'signature of the quoting enclave',
    isP256(key) && isSigned(qe.report.raw, key, qe.signature),
    'EV_SIGNATURE',
    {
      expected: 'a signature of the platform',
      actual: 'it does not verify',
    },
  );
}

function checkChain(
  { pck, authorities, tcbInfo, qeIdentity, pckRevocationList, rootRevocationList }: DcapEndorsements,
  { root, acceptExpiredCollateral }: DcapRules,
  now: Date,
): Verdict[] {
  const issuer = pckRevocationList.value?.document.issuer;
  const sent = authorities.filter(({ x509 }) => x509.subject !== x509.issuer);
  const intermediates = [...root.intermediates, ...sent, ...(issuer === undefined ? [] : [issuer])];
  const result = findPath(pck.certificate, { ...root, intermediates }, now);
  const [, authority] = result.valid ? result.path : [];
  return [
    check('certificate chain', result.valid, 'EV_CERT_CHAIN', {
      expected: `a valid path to the root of ${root.name}`,
      actual: result.valid ? '' : result.reason,
      source: root.name,
    }),
    ...list('revocation list of the root', listOf(rootRevocationList), acceptExpiredCollateral, now, (revoked) => [
      check('authority of the platform', authority === undefined || !isListed(revoked, authority), 'EV_CERT_REVOKED', {
        actual: `serial number ${authority?.x509.serialNumber}`,
      }),
    ]),
    ...list(
      'revocation list of platforms',
      issuedListOf(pckRevocationList),
      acceptExpiredCollateral,
      now,
      (revoked) => [
        // The list is that of the authority that the certificate names; a key of another of that name is not in the path.
        check('certificate of the platform', !isListed(revoked, pck.certificate), 'EV_CERT_REVOKED', {
          actual: `serial number ${pck.certificate.x509.serialNumber}`,
        }),
      ],
    ),
    ...revokedSigners(rootRevocationList, [pckRevocationList, tcbInfo, qeIdentity]),
  ];
}

/** Whoever signed collateral may have been revoked by the root since. */
function revokedSigners(
  { value: revoked }: Collateral<RevocationList>,
  collateral: readonly Collateral<Verified<unknown>>[],
): Verdict[] {
  if (revoked === undefined) return [];
  const signers = collateral.flatMap(({ value }) => value?.chain.path.slice(0, -1) ?? []);
  const bad = signers.find((signer) => isListed(revoked, signer));
  return [
    check('signers of collateral', bad === undefined, 'EV_CERT_REVOKED', {
      actual: `serial number ${bad?.x509.serialNumber}`,
    }),
  ];
}

function document<Document extends SignedFor>(
  name: string,
  { value, problem, ...others }: Collateral<Verified<Document>>,
  { acceptExpiredCollateral }: DcapRules,
  now: Date,
  then: (document: Document) => readonly Verdict[],
): Verdict[] {
  if (value === undefined) return [missing(name, problem)];
  const { document: read } = value;
  const current = isCurrentDocument(value, now);
  return [
    check(name, current || (acceptExpiredCollateral && read.issueDate <= now), 'EV_COLLATERAL_EXPIRED', {
      expected: `issued by ${now.toISOString()} and current`,
      actual: `from ${read.issueDate.toISOString()} to ${read.nextUpdate.toISOString()}${elsewhere(others)}`,
    }),
    ...then(read),
  ];
}

function list(
  name: string,
  { value, problem, ...others }: Collateral<DatedList>,
  acceptExpired: boolean,
  now: Date,
  then: (list: RevocationList) => readonly Verdict[],
): Verdict[] {
  if (value === undefined) return [missing(name, problem)];
  const { list: revoked, chain } = value;
  const { thisUpdate, nextUpdate } = revoked;
  const current = isCurrent(revoked, now) && (chain === undefined || isValidAt(chain, now));
  const issuer = chain === undefined ? '' : `, its issuer to ${chain.notAfter.toISOString()}`;
  return [
    check(name, current || (acceptExpired && thisUpdate <= now), 'EV_COLLATERAL_EXPIRED', {
      expected: 'a list that is current, of an issuer that is valid',
      actual: `from ${thisUpdate.toISOString()} to ${nextUpdate?.toISOString() ?? 'no date'}${issuer}${elsewhere(others)}`,
    }),
    ...then(revoked),
  ];
}

/** A list, and who issued it where that is not the root itself. */
interface DatedList {
  readonly list: RevocationList;
  readonly chain?: VerifiedChain;
}

function listOf(list: Collateral<RevocationList>): Collateral<DatedList> {
  return list.value === undefined ? list : { ...list, value: { list: list.value } };
}

function issuedListOf(list: Collateral<Verified<RevocationList>>): Collateral<DatedList> {
  return list.value === undefined ? list : { ...list, value: { list: list.value.document, chain: list.value.chain } };
}

/** Why no other source helped out where collateral is not current. */
function elsewhere({ elsewhere: problem }: { readonly elsewhere?: SealpodError }): string {
  return problem === undefined
    ? ''
    : `; ${problem.message}${problem.detail.actual ? `: ${problem.detail.actual}` : ''}`;
}

function missing(name: string, problem: SealpodError): Verdict {
  const { expected, actual = problem.message, source } = problem.detail;
  return check(name, false, problem.code, {
    ...(expected === undefined ? {} : { expected }),
    actual,
    ...(source === undefined ? {} : { source }),
  });
}

/** Who signed the TDX module, and that it is no debug module. */
function checkModule({ body }: Quote, info: TcbInfo): Verdict[] {
  if (body.tee !== 'tdx') return [];
  const { teeTcbSvn, mrSignerSeam, seamAttributes } = body.report;
  const { name, module } = moduleIdentityOf(info, teeTcbSvn);
  if (module === undefined) {
    return [
      check('TDX module', false, 'EV_TCB_STATUS', {
        expected: `TCB info that knows the module ${name}`,
        actual: 'it does not',
      }),
    ];
  }
  const attributes = masked(seamAttributes, module.attributesMask);
  return [
    check('signer of the TDX module', timingSafeEqual(mrSignerSeam, module.mrSigner), 'EV_TCB_STATUS', {
      expected: module.mrSigner.toString('hex'),
      actual: mrSignerSeam.toString('hex'),
      source: name,
    }),
    check(
      'attributes of the TDX module',
      seamAttributes.every((byte) => byte === 0) && attributes.equals(masked(module.attributes, module.attributesMask)),
      'EV_DEBUG_ON',
      { expected: module.attributes.toString('hex'), actual: seamAttributes.toString('hex'), source: name },
    ),
  ];
}

/** The quoting enclave is Intel's, of the kind that signs quotes of this TEE, and not in debug mode. */
function checkEnclave({ qe: { report } }: Quote, identity: EnclaveIdentity): Verdict {
  const differences = [
    ...(report.mrSigner.equals(identity.mrSigner) ? [] : [`MRSIGNER ${report.mrSigner.toString('hex')}`]),
    ...(report.isvProdId === identity.isvProdId ? [] : [`ISVPRODID ${report.isvProdId}`]),
    ...(masked(report.miscSelect, identity.miscSelectMask).equals(masked(identity.miscSelect, identity.miscSelectMask))
      ? []
      : [`MISCSELECT ${report.miscSelect.toString('hex')}`]),
    ...(masked(report.attributes, identity.attributesMask).equals(masked(identity.attributes, identity.attributesMask))
      ? []
      : [`ATTRIBUTES ${report.attributes.toString('hex')}`]),
  ];
  const level = enclaveLevel(identity, report.isvSvn);
  return check('quoting enclave', differences.length === 0 && level !== undefined, 'EV_AK_UNTRUSTED', {
    expected: `the enclave ${identity.id} of Intel`,
    actual: differences.join(', ') || `ISVSVN ${report.isvSvn}, which no level has`,
  });
}

function masked(bytes: Buffer, mask: Buffer): Buffer {
  return Buffer.from(bytes.map((byte, index) => byte & (mask[index] ?? 0)));
}

/** undefined for coordinates of no point: Node refuses them. */
function pointKey(point: Buffer): KeyObject | undefined {
  const [x, y] = [point.subarray(0, 32), point.subarray(32)].map((part) => part.toString('base64url'));
  try {
    return createPublicKey({ key: { kty: 'EC', crv: 'P-256', x: x ?? '', y: y ?? '' }, format: 'jwk' });
  } catch {
    return undefined;
  }
}

function isP256({ asymmetricKeyDetails }: KeyObject): boolean {
  return asymmetricKeyDetails?.namedCurve === 'prime256v1';
}

function isSigned(bytes: Buffer, key: KeyObject, signature: Buffer): boolean {
  return verify('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' }, signature);
}
