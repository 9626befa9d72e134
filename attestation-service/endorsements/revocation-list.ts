import { constants, verify } from 'node:crypto';
import { AsnConvert, type OctetString } from '@peculiar/asn1-schema';
import { CertificateList } from '@peculiar/asn1-x509';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Certificate } from './certificate.ts';
import { remembered } from './remembered.ts';

/** A revocation list whose signature was verified. */
export interface RevocationList {
  readonly issuer: Certificate;
  readonly thisUpdate: Date;
  /** Undefined where the list does not say until when it is current. */
  readonly nextUpdate?: Date;
  /** CRL number (RFC 5280 section 5.2.3); undefined where there is none. */
  readonly number?: bigint;
  /** Serial numbers in upper-case hexadecimal without leading zeros. */
  readonly revoked: ReadonlySet<string>;
}

const crlNumberExtension = '2.5.29.20';
const maxRevoked = 100_000;

/**
 * Parses a revocation list (DER) and verifies its signature by `issuer`, whose own chain is the caller's to verify.
 * Dates are not compared: see {@link isCurrent}.
 *
 * @throws SealpodError EV_FORMAT, EV_SIGNATURE, REQUEST_TOO_LARGE
 */
export function readRevocationList(der: Uint8Array, issuer: Certificate): RevocationList {
  const ofIssuer = readers.get(issuer) ?? remembered(listsKept, (bytes) => readList(bytes, issuer));
  readers.set(issuer, ofIssuer);
  return ofIssuer(der);
}

/** Of one issuer; a list comes with every machine of its processors. */
const listsKept = 4;
const readers = new WeakMap<Certificate, (der: Uint8Array) => RevocationList>();

function readList(der: Uint8Array, issuer: Certificate): RevocationList {
  const list = parse(der);
  const { thisUpdate, nextUpdate, revokedCertificates = [], crlExtensions = [] } = list.tbsCertList;
  if (revokedCertificates.length > maxRevoked) {
    throw new SealpodError('REQUEST_TOO_LARGE', 'a revocation list has too many entries', {
      expected: `at most ${maxRevoked}`,
      actual: `${revokedCertificates.length}`,
    });
  }
  if (!isSignedBy(list, issuer)) {
    throw new SealpodError('EV_SIGNATURE', 'the signature of a revocation list does not verify', {
      expected: `signed by ${issuer.x509.subject.replaceAll('\n', ', ')}`,
      actual: 'it is not',
    });
  }
  const number = crlExtensions.find(({ extnID }) => extnID === crlNumberExtension)?.extnValue;
  return {
    issuer,
    thisUpdate: thisUpdate.getTime(),
    ...(nextUpdate === undefined ? {} : { nextUpdate: nextUpdate.getTime() }),
    ...(number === undefined ? {} : { number: integer(number) }),
    revoked: new Set(
      revokedCertificates.map(({ userCertificate }) => serial(Buffer.from(userCertificate).toString('hex'))),
    ),
  };
}

/** Whether a list may be relied on at a time. */
export function isCurrent({ thisUpdate, nextUpdate }: RevocationList, now: Date): boolean {
  return thisUpdate <= now && (nextUpdate === undefined || now <= nextUpdate);
}

/** What tells the newer of two lists: the number, and the date where numbers are equal, as those of all of Intel's are. */
export function listOrder({ number = 0n, thisUpdate }: RevocationList): readonly number[] {
  return [Number(number), thisUpdate.getTime()];
}

/** Whether a list revokes a certificate; only certificates of the list's issuer are in it. */
export function revokes(list: RevocationList, certificate: Certificate): boolean {
  return isListed(list, certificate) && certificate.x509.checkIssued(list.issuer.x509);
}

/** Whether a certificate is in a list; only meaningful for certificates of the list's issuer, which the caller has seen to. */
export function isListed({ revoked }: Pick<RevocationList, 'revoked'>, { x509 }: Certificate): boolean {
  return revoked.has(serial(x509.serialNumber));
}

function parse(der: Uint8Array): CertificateList {
  try {
    return AsnConvert.parse(der, CertificateList);
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'malformed revocation list', { cause });
  }
}

const rsaPss = '1.2.840.113549.1.1.10';

/** Hashes by signature algorithm: ECDSA, RSASSA-PKCS1-v1_5, and RSASSA-PSS, whose parameters name one of them. */
const hashesOf: Readonly<Record<string, readonly string[]>> = {
  '1.2.840.10045.4.3.2': ['sha256'],
  '1.2.840.10045.4.3.3': ['sha384'],
  '1.2.840.10045.4.3.4': ['sha512'],
  '1.2.840.113549.1.1.11': ['sha256'],
  '1.2.840.113549.1.1.12': ['sha384'],
  '1.2.840.113549.1.1.13': ['sha512'],
  [rsaPss]: ['sha384', 'sha256', 'sha512'],
};

function isSignedBy(list: CertificateList, { keyUsage, x509 }: Certificate): boolean {
  const { algorithm } = list.signatureAlgorithm;
  const { tbsCertListRaw } = list;
  if (keyUsage?.cRLSign === false || tbsCertListRaw === undefined) return false;
  if (!list.signatureAlgorithm.isEqual(list.tbsCertList.signature)) return false;
  const key = {
    key: x509.publicKey,
    ...(algorithm === rsaPss ? { padding: constants.RSA_PKCS1_PSS_PADDING } : {}),
  };
  const [signed, signature] = [Buffer.from(tbsCertListRaw), Buffer.from(list.signature)];
  return (hashesOf[algorithm] ?? []).some((hash) => verify(hash, signed, key, signature));
}

function serial(hexadecimal: string): string {
  return hexadecimal.toUpperCase().replace(/^0+(?=.)/, '');
}

/** The value of an extension that is a DER INTEGER, and not negative. */
function integer(value: OctetString): bigint {
  const der = Buffer.from(value.buffer);
  const content = der.subarray(2);
  const isInteger = der[0] === 2 && der[1] === content.length && content.length > 0 && content.length <= 20;
  if (!isInteger || (content[0] ?? 0) > 127)
    throw new SealpodError('EV_FORMAT', 'the number of a revocation list is no integer');
  return BigInt(`0x${content.toString('hex')}`);
}
