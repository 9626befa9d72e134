import 'reflect-metadata';
import { createHash, sign } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  BasicOCSPResponse,
  CertStatus,
  id_pkix_ocsp_basic,
  OCSPRequest,
  OCSPResponse,
  OCSPResponseStatus,
  ResponderID,
  ResponseBytes,
  ResponseData,
  RevokedInfo,
  SingleResponse,
} from '@peculiar/asn1-ocsp';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier, Certificate, Extensions } from '@peculiar/asn1-x509';
import { ExtendedKeyUsageExtension } from '@peculiar/x509';
import { SealpodError } from '@sealpod/protocol/errors';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Issued, issue } from '../verifiers/testing/authority.ts';
import { parseCertificate } from './certificate.ts';
import { askOcsp, type RevocationStatus } from './ocsp.ts';

const now = new Date('2026-06-01T00:00:00Z');
let server: Server;
let url = '';
let root: Issued;
let subject: Issued;
let responder: Issued;
let stranger: Issued;
/** What the responder answers; tests change it. */
let behaviour: {
  status: CertStatus;
  signer: Issued;
  certificates: Issued[];
  nonce: boolean;
  nextUpdate: Date;
  about?: Issued;
  http: number;
  outcome: OCSPResponseStatus;
};

beforeAll(async () => {
  const forOcsp = { extensions: [new ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.9'])] };
  root = await issue(undefined, 'CN=Root', { authority: true });
  subject = await issue(root, 'CN=Subject');
  responder = await issue(root, 'CN=Responder', forOcsp);
  stranger = await issue(undefined, 'CN=Stranger', forOcsp);
  server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    response.statusCode = behaviour.http;
    response.end(answer(Buffer.concat(chunks)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});
afterAll(() => new Promise((resolve) => server.close(resolve)));
beforeEach(() => {
  behaviour = {
    status: new CertStatus({ good: null }),
    signer: responder,
    certificates: [responder],
    nonce: true,
    nextUpdate: new Date('2026-06-02T00:00:00Z'),
    http: 200,
    outcome: OCSPResponseStatus.successful,
  };
});

function answer(request: Buffer): Buffer {
  const { requestList, requestExtensions } = AsnConvert.parse(request, OCSPRequest).tbsRequest;
  const [first] = requestList;
  if (first === undefined) throw new Error('no question');
  const certID = first.reqCert;
  if (behaviour.about !== undefined)
    certID.serialNumber = AsnConvert.parse(behaviour.about.der, Certificate).tbsCertificate.serialNumber;
  const { status: certStatus, nextUpdate, signer, certificates } = behaviour;
  const data = new ResponseData({
    responderID: new ResponderID({ byKey: new OctetString(createHash('sha1').update('key').digest()) }),
    producedAt: now,
    responses: [new SingleResponse({ certID, certStatus, thisUpdate: now, nextUpdate })],
    ...(behaviour.nonce && requestExtensions !== undefined
      ? { responseExtensions: new Extensions([...requestExtensions]) }
      : {}),
  });
  const signed = Buffer.from(AsnConvert.serialize(data));
  const basic = new BasicOCSPResponse({
    tbsResponseData: data,
    signatureAlgorithm: new AlgorithmIdentifier({ algorithm: '1.2.840.10045.4.3.3' }),
    signature: new Uint8Array(sign('sha384', signed, signer.key)).buffer,
    certs: certificates.map(({ der }) => AsnConvert.parse(der, Certificate)),
  });
  const responseBytes = new ResponseBytes({
    responseType: id_pkix_ocsp_basic,
    response: new OctetString(AsnConvert.serialize(basic)),
  });
  return Buffer.from(AsnConvert.serialize(new OCSPResponse({ responseStatus: behaviour.outcome, responseBytes })));
}

const ask = (at = now): Promise<RevocationStatus> =>
  askOcsp(url, parseCertificate(subject.der), parseCertificate(root.der), { now: at, timeoutMs: 5000 });
const code = async (work: Promise<unknown>): Promise<string> => {
  const thrown: unknown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  return thrown instanceof SealpodError ? thrown.code : String(thrown);
};

describe('an OCSP responder', () => {
  it('is believed where the issuer, or who it certified for this, signed its answer', async () => {
    expect(await ask()).toEqual({ status: 'good' });
    behaviour = { ...behaviour, signer: root, certificates: [] };
    expect(await ask()).toEqual({ status: 'good' });
    behaviour.status = new CertStatus({ revoked: new RevokedInfo({ revocationTime: now }) });
    expect(await ask()).toEqual({ status: 'revoked' });
    behaviour.status = new CertStatus({ unknown: null });
    expect(await ask()).toEqual({ status: 'unknown' });
  });

  const faults: [string, () => Partial<typeof behaviour>, string][] = [
    ['of another authority', () => ({ signer: stranger, certificates: [stranger] }), 'EV_SIGNATURE'],
    ['whose certificate is not for OCSP', () => ({ signer: subject, certificates: [subject] }), 'EV_SIGNATURE'],
    ['that leaves the nonce out', () => ({ nonce: false }), 'EV_SIGNATURE'],
    ['that speaks of another certificate', () => ({ about: responder }), 'EV_SIGNATURE'],
    [
      'that answers with what is old',
      () => ({ nextUpdate: new Date('2026-05-31T00:00:00Z') }),
      'EV_COLLATERAL_EXPIRED',
    ],
    ['that has too much to do', () => ({ outcome: OCSPResponseStatus.tryLater }), 'EV_COLLATERAL_UNAVAILABLE'],
    ['that fails', () => ({ http: 500 }), 'EV_COLLATERAL_UNAVAILABLE'],
  ];
  it.each(faults)('%s is not believed', async (_, fault, expected) => {
    behaviour = { ...behaviour, ...fault() };
    expect(await code(ask())).toBe(expected);
  });

  it('whose answer is of a time to come is not believed', async () => {
    expect(await code(ask(new Date('2026-05-31T00:00:00Z')))).toBe('EV_COLLATERAL_EXPIRED');
  });
});
