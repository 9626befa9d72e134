import { createHash, randomBytes, verify } from 'node:crypto';
import {
  BasicOCSPResponse,
  CertID,
  id_pkix_ocsp_basic,
  id_pkix_ocsp_nonce,
  OCSPRequest,
  OCSPResponse,
  OCSPResponseStatus,
  Request,
  type SingleResponse,
  TBSRequest,
} from '@peculiar/asn1-ocsp';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier, Certificate as AsnCertificate, Extension, Extensions } from '@peculiar/asn1-x509';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Certificate, parseCertificate } from './certificate.ts';
import { type EnrolledRoot, findPath } from './certificate-path.ts';

/** What an OCSP responder says of a certificate. */
export interface RevocationStatus {
  readonly status: 'good' | 'revoked' | 'unknown';
  /** Reason of RFC 5280 section 5.3.1 as a number; undefined where there is none. */
  readonly reason?: number;
}

/** Limits of a question to a responder. */
export interface OcspOptions {
  /** Milliseconds, default 10 000. */
  readonly timeoutMs?: number;
  readonly now: Date;
}

const maxResponseBytes = 64 * 1024;
const sha384 = '2.16.840.1.101.3.4.2.2';
const hashOfSignature: Readonly<Record<string, string>> = {
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
};
const ocspSigning = '1.3.6.1.5.5.7.3.9';

/**
 * Asks an OCSP responder (RFC 6960) about one certificate, with a nonce that the answer has to repeat. The answer is signed by
 * the issuer, or by a certificate for OCSP signing that the issuer issued; its dates hold now.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where no answer is had, EV_SIGNATURE for one that is not the responder's,
 * EV_COLLATERAL_EXPIRED for an old one, EV_FORMAT
 */
export async function askOcsp(
  url: string,
  subject: Certificate,
  issuer: Certificate,
  options: OcspOptions,
): Promise<RevocationStatus> {
  const nonce = randomBytes(32);
  const id = certificateId(subject, issuer);
  const answer = await post(url, Buffer.from(AsnConvert.serialize(question(id, nonce))), options.timeoutMs ?? 10_000);
  const basic = parseAnswer(answer);
  checkSignature(basic, issuer, options.now);
  const extensions = basic.tbsResponseData.responseExtensions ?? [];
  const repeated = extensions.find(({ extnID }) => extnID === id_pkix_ocsp_nonce)?.extnValue;
  if (repeated === undefined || !nonceOf(repeated).equals(nonce))
    throw refused('EV_SIGNATURE', 'an OCSP response answers another question', nonce.toString('hex'));
  const single = basic.tbsResponseData.responses.find(({ certID }) => sameCertificate(certID, id));
  if (single === undefined)
    throw refused('EV_SIGNATURE', 'an OCSP response is about another certificate', 'the one asked for');
  checkDates(single, options.now);
  return statusOf(single);
}

function certificateId(subject: Certificate, issuer: Certificate): CertID {
  const asn = AsnConvert.parse(issuer.x509.raw, AsnCertificate).tbsCertificate;
  const hash = (bytes: ArrayBuffer): OctetString =>
    new OctetString(createHash('sha384').update(Buffer.from(bytes)).digest());
  return new CertID({
    hashAlgorithm: new AlgorithmIdentifier({ algorithm: sha384 }),
    issuerNameHash: hash(AsnConvert.serialize(asn.subject)),
    issuerKeyHash: hash(asn.subjectPublicKeyInfo.subjectPublicKey),
    serialNumber: AsnConvert.parse(subject.x509.raw, AsnCertificate).tbsCertificate.serialNumber,
  });
}

function question(id: CertID, nonce: Buffer): OCSPRequest {
  const value = new OctetString(AsnConvert.serialize(new OctetString(nonce)));
  return new OCSPRequest({
    tbsRequest: new TBSRequest({
      requestList: [new Request({ reqCert: id })],
      requestExtensions: new Extensions([new Extension({ extnID: id_pkix_ocsp_nonce, extnValue: value })]),
    }),
  });
}

async function post(url: string, body: Buffer, timeoutMs: number): Promise<Buffer> {
  try {
    const response = await fetch(url, {
      method: 'POST',
      body: new Uint8Array(body),
      headers: { 'content-type': 'application/ocsp-request' },
      signal: AbortSignal.timeout(timeoutMs),
      redirect: 'error',
    });
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response.body ?? []) {
      length += chunk.length;
      if (length > maxResponseBytes) throw new RangeError(`an answer larger than ${maxResponseBytes} bytes`);
      chunks.push(chunk);
    }
    if (response.status !== 200) throw new RangeError(`status ${response.status}`);
    return Buffer.concat(chunks);
  } catch (cause) {
    throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'an OCSP responder could not be asked', {
      cause,
      expected: `an answer from ${url}`,
      actual: cause instanceof Error ? cause.message : String(cause),
    });
  }
}

function parseAnswer(bytes: Buffer): BasicOCSPResponse {
  let response: OCSPResponse;
  try {
    response = AsnConvert.parse(bytes, OCSPResponse);
    const { responseBytes, responseStatus } = response;
    if (responseStatus === OCSPResponseStatus.successful && responseBytes?.responseType === id_pkix_ocsp_basic)
      return AsnConvert.parse(responseBytes.response, BasicOCSPResponse);
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'malformed OCSP response', { cause });
  }
  throw refused('EV_COLLATERAL_UNAVAILABLE', 'an OCSP responder refuses to answer', 'a successful basic response');
}

function checkSignature(basic: BasicOCSPResponse, issuer: Certificate, now: Date): void {
  const { tbsResponseDataRaw, signatureAlgorithm, signature, certs = [] } = basic;
  const hash = hashOfSignature[signatureAlgorithm.algorithm];
  const delegates = certs
    .slice(0, 4)
    .map((certificate) => parseCertificate(Buffer.from(AsnConvert.serialize(certificate))));
  const anchor: EnrolledRoot = { name: 'OCSP', simulated: false, anchors: [issuer], intermediates: [] };
  const mayAnswer = (candidate: Certificate): boolean =>
    candidate.extendedKeyUsage?.includes(ocspSigning) === true && findPath(candidate, anchor, now).valid;
  const signers = [issuer, ...delegates.filter(mayAnswer)];
  const signed = Buffer.from(tbsResponseDataRaw ?? AsnConvert.serialize(basic.tbsResponseData));
  const holds =
    hash !== undefined && signers.some(({ x509 }) => verify(hash, signed, x509.publicKey, Buffer.from(signature)));
  if (!holds)
    throw refused(
      'EV_SIGNATURE',
      'the signature of an OCSP response does not verify',
      `signed for ${issuer.x509.subject.replaceAll('\n', ', ')}`,
    );
}

/** RFC 8954: an OCTET STRING inside of the extension; some responders leave that out. */
function nonceOf({ buffer }: OctetString): Buffer {
  const bytes = Buffer.from(buffer);
  return bytes.length === 34 && bytes[0] === 4 && bytes[1] === 32 ? bytes.subarray(2) : bytes;
}

function sameCertificate(left: CertID, right: CertID): boolean {
  return (
    Buffer.from(AsnConvert.serialize(left)).equals(Buffer.from(AsnConvert.serialize(right))) ||
    (Buffer.from(left.serialNumber).equals(Buffer.from(right.serialNumber)) &&
      left.hashAlgorithm.algorithm === right.hashAlgorithm.algorithm &&
      Buffer.from(left.issuerKeyHash.buffer).equals(Buffer.from(right.issuerKeyHash.buffer)) &&
      Buffer.from(left.issuerNameHash.buffer).equals(Buffer.from(right.issuerNameHash.buffer)))
  );
}

function checkDates({ thisUpdate, nextUpdate }: SingleResponse, now: Date): void {
  // Clocks differ: what was said within the next minutes was said now.
  const early = thisUpdate.getTime() > now.getTime() + 300_000;
  if (early || (nextUpdate !== undefined && nextUpdate < now))
    throw new SealpodError('EV_COLLATERAL_EXPIRED', 'an OCSP response is not of now', {
      expected: now.toISOString(),
      actual: `${thisUpdate.toISOString()} to ${nextUpdate?.toISOString() ?? 'any time'}`,
    });
}

function statusOf({ certStatus }: SingleResponse): RevocationStatus {
  if (certStatus.good !== undefined) return { status: 'good' };
  if (certStatus.revoked === undefined) return { status: 'unknown' };
  const reason = certStatus.revoked.revocationReason;
  return { status: 'revoked', ...(reason === undefined ? {} : { reason: Number(reason.reason) }) };
}

function refused(code: 'EV_SIGNATURE' | 'EV_COLLATERAL_UNAVAILABLE', message: string, expected: string): SealpodError {
  return new SealpodError(code, message, { expected, actual: 'it is not' });
}
