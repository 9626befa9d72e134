import { verify } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  decodeHex,
  type JsonValue,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';
import { type Certificate, parsePemCertificates } from '../certificate.ts';
import type { EnrolledRoot } from '../certificate-path.ts';
import { isCurrent, type RevocationList, readRevocationList } from '../revocation-list.ts';
import { isValidAt, type VerifiedChain, verifyChain } from '../verified-chain.ts';
import type { IntelAnswer, PckAuthority } from './source.ts';
import type { SignedFor } from './tcb-info.ts';

/** A document whose signature verified under a chain to Intel's root. Dates and revocation are not looked at. */
export interface Verified<Document> {
  readonly document: Document;
  readonly chain: VerifiedChain;
}

const code = 'EV_FORMAT';
const maxBytes = 1024 * 1024;

/** The only certificate under Intel's root that may sign TCB info and identities of enclaves. */
const signerName = 'Intel SGX TCB Signing';

/** Who issues certificates of platforms, and the lists of those that were revoked. */
const pckAuthorities: Readonly<Record<PckAuthority, string>> = {
  platform: 'Intel SGX PCK Platform CA',
  processor: 'Intel SGX PCK Processor CA',
};

/** Common name of a certificate's subject. */
export function commonName({ x509 }: Certificate): string {
  return /(?:^|\n)CN=([^\n]*)/.exec(x509.subject)?.[1] ?? '';
}

/**
 * Verifies `{[member]: {…}, "signature": "hex"}`: ECDSA over P-256 of the member's compact JSON text.
 *
 * @throws SealpodError EV_FORMAT, EV_CERT_CHAIN, EV_SIGNATURE
 */
export function verifySignedDocument<Document>(
  { document, issuerChain = '' }: IntelAnswer,
  member: 'tcbInfo' | 'enclaveIdentity',
  parse: (value: JsonValue | undefined) => Document,
  root: EnrolledRoot,
  now: Date,
): Verified<Document> {
  const object = asJsonObject(parseJson(document, { maxSize: maxBytes, what: member, code }), member, code);
  const value = optionalMember(object, member);
  const signature = decodeHex(stringMember(object, 'signature', code), { what: 'signature', maxBytes: 64, code });
  const [signer, ...others] = parsePemCertificates(issuerChain);
  if (signer === undefined) throw new SealpodError(code, `the signer of ${member} is missing`);
  const chain = verifyChain(signer, others, root, now);
  if (commonName(signer) !== signerName) {
    throw new SealpodError('EV_CERT_CHAIN', `${member} is signed by a certificate of another purpose`, {
      expected: signerName,
      actual: commonName(signer),
    });
  }
  // What is signed is what is used: the text is made from the parsed value, not cut out of the answer.
  const signed = Buffer.from(JSON.stringify(value ?? null));
  if (!verify('sha256', signed, { key: signer.x509.publicKey, dsaEncoding: 'ieee-p1363' }, signature)) {
    throw new SealpodError('EV_SIGNATURE', `the signature of ${member} does not verify`, {
      expected: `signed by ${signerName}`,
      actual: 'it is not',
    });
  }
  return { document: parse(value), chain };
}

/** Verifies a list of revoked platforms under its issuer's chain. @throws SealpodError EV_FORMAT, EV_CERT_CHAIN, EV_SIGNATURE */
export function verifyPckRevocationList(
  { document, issuerChain = '' }: IntelAnswer,
  authority: PckAuthority,
  root: EnrolledRoot,
  now: Date,
): Verified<RevocationList> {
  const [issuer, ...others] = parsePemCertificates(issuerChain);
  if (issuer === undefined) throw new SealpodError(code, 'the issuer of a revocation list is missing');
  const chain = verifyChain(issuer, others, root, now);
  // A list of the other authority is signed as well, and names nobody of this one.
  if (commonName(issuer) !== pckAuthorities[authority]) {
    throw new SealpodError('EV_CERT_CHAIN', 'a revocation list is of another issuer', {
      expected: pckAuthorities[authority],
      actual: commonName(issuer),
    });
  }
  return { document: readRevocationList(document, issuer), chain };
}

/** Whether a document may be relied on at a time: by its own dates, and those of whoever signed it. */
export function isCurrentDocument({ document, chain }: Verified<SignedFor>, now: Date): boolean {
  return document.issueDate <= now && now <= document.nextUpdate && isValidAt(chain, now);
}

/** Whether a list may be relied on at a time: by its own dates, and those of its issuer. */
export function isCurrentList({ document, chain }: Verified<RevocationList>, now: Date): boolean {
  return isCurrent(document, now) && isValidAt(chain, now);
}
