import { type EnclaveReport, readEnclaveReport } from './enclave-report.ts';
import { QuoteReader } from './reader.ts';

/** How the key that signed the QE's report is named (SGX ECDSA QuoteLib API, "Quote Format", certification data). */
export type CertificationData =
  /** Types 1 to 3: the platform's identifier in clear, or encrypted to Intel with RSA-2048 or RSA-3072. */
  | {
      readonly kind: 'platform-id';
      readonly type: 1 | 2 | 3;
      readonly platformId: Buffer;
      readonly cpuSvn: Buffer;
      readonly pceSvn: number;
      /** As Intel's services write it: two bytes in the order of the wire. */
      readonly pceId: Buffer;
    }
  /** Type 4: the certificate of the key, PEM or DER. */
  | { readonly kind: 'leaf-certificate'; readonly type: 4; readonly certificate: Buffer }
  /** Type 5: that certificate and those above it, PEM. */
  | { readonly kind: 'certificate-chain'; readonly type: 5; readonly chain: string }
  /** Type 7: what the platform sends to be registered; it names no key that could be verified here. */
  | { readonly kind: 'platform-manifest'; readonly type: 7; readonly manifest: Buffer };

/** What certifies the attestation key: a report of the quoting enclave, signed by the platform. Nothing is verified. */
export interface QeCertification {
  readonly report: EnclaveReport;
  /** ECDSA over P-256 of the report, r and s, 64 bytes. */
  readonly signature: Buffer;
  readonly authenticationData: Buffer;
  readonly certification: CertificationData;
}

const platformIdBytes = { 1: 16, 2: 256, 3: 384 } as const;
const qeReportCertification = 6;

/** The report of the QE and what follows it: the rest of a signature of version 3, the content of type 6 after it. */
export function readQeCertification(reader: QuoteReader): QeCertification {
  const report = readEnclaveReport(reader);
  const signature = reader.bytes(64);
  const authenticationData = reader.bytes(reader.uint16());
  const certification = parseCertification(reader.uint16(), reader.bytes(reader.uint32()));
  reader.end();
  return { report, signature, authenticationData, certification };
}

/** Type 6, which quotes of versions 4 and 5 have outermost. @throws SealpodError EV_FORMAT for any other */
export function readOuterCertification(reader: QuoteReader): QeCertification {
  const type = reader.uint16();
  if (type !== qeReportCertification) throw reader.fail(`certification data of type ${type}, not 6`);
  const content = reader.bytes(reader.uint32());
  reader.end();
  return readQeCertification(new QuoteReader(content, 'QE report certification data'));
}

function parseCertification(type: number, content: Buffer): CertificationData {
  const reader = new QuoteReader(content, `certification data of type ${type}`);
  switch (type) {
    case 1:
    case 2:
    case 3: {
      const platformId = reader.bytes(platformIdBytes[type]);
      const cpuSvn = reader.bytes(16);
      const pceSvn = reader.uint16();
      const pceId = reader.bytes(2);
      reader.end();
      return { kind: 'platform-id', type, platformId, cpuSvn, pceSvn, pceId };
    }
    case 4:
      return { kind: 'leaf-certificate', type, certificate: content };
    case 5:
      return { kind: 'certificate-chain', type, chain: content.toString('latin1') };
    case 7:
      return { kind: 'platform-manifest', type, manifest: content };
    default:
      throw reader.fail('unknown type');
  }
}
