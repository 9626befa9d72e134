import 'reflect-metadata';
import { createPrivateKey, sign, webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509CertificateGenerator,
  X509CrlGenerator,
} from '@peculiar/x509';
import { type SnpTcb, snpReportBytes, snpSignedBytes } from '@sealpod/protocol/snp';
import { parseCertificate } from '../../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../../endorsements/certificate-path.ts';

const curve = { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' } as const;
const issued = new Date('2024-01-01T00:00:00Z');
const ends = new Date('2034-01-01T00:00:00Z');

/** One certificate and its key. */
interface Issued {
  readonly keys: webcrypto.CryptoKeyPair;
  readonly subject: string;
  readonly der: Buffer;
}

/** What a test makes another about the certificate of a versioned key. */
export interface KeyFaults {
  readonly tcb?: SnpTcb;
  readonly chipId?: Buffer | null;
  readonly notAfter?: Date;
  readonly name?: 'SEV-VCEK' | 'SEV-VLEK';
}

/** A test's AMD: root, both intermediates, and certificates of versioned keys below them. */
export class TestAmd {
  readonly ark: Issued;
  readonly ask: Issued;
  readonly asvk: Issued;

  private constructor(ark: Issued, ask: Issued, asvk: Issued) {
    this.ark = ark;
    this.ask = ask;
    this.asvk = asvk;
  }

  static async create(generation = 'Milan'): Promise<TestAmd> {
    const ark = await issue(undefined, `CN=ARK-${generation}`, authority());
    const ask = await issue(ark, `CN=SEV-${generation}`, authority());
    const asvk = await issue(ark, `CN=SEV-VLEK-${generation}`, authority());
    return new TestAmd(ark, ask, asvk);
  }

  get root(): EnrolledRoot {
    const [anchor, ...intermediates] = [this.ark, this.ask, this.asvk].map(({ der }) => parseCertificate(der));
    return { name: 'test AMD', simulated: false, anchors: anchor === undefined ? [] : [anchor], intermediates };
  }

  /** A VCEK of a chip at a TCB. */
  chipKey(chipId: Buffer, tcb: SnpTcb, faults: KeyFaults = {}, issuer: Issued = this.ask): Promise<Issued> {
    const { tcb: certified = tcb, chipId: certifiedChip = chipId, name = 'SEV-VCEK', notAfter } = faults;
    const extensions = [
      ...tcbExtensions(certified),
      ...(certifiedChip === null ? [] : [new Extension('1.3.6.1.4.1.3704.1.4', false, bytes(certifiedChip))]),
    ];
    return issue(issuer, `CN=${name}`, extensions, notAfter);
  }

  /** A VLEK at a TCB. */
  providerKey(tcb: SnpTcb, faults: KeyFaults = {}): Promise<Issued> {
    return this.chipKey(Buffer.alloc(64), tcb, { chipId: null, name: 'SEV-VLEK', ...faults }, this.asvk);
  }

  /** A revocation list of the root. */
  async revocationList(
    revoked: readonly Issued[],
    nextUpdate = ends,
    signer: Issued = this.ark,
    thisUpdate = issued,
  ): Promise<Buffer> {
    const list = await X509CrlGenerator.create({
      issuer: this.ark.subject,
      thisUpdate,
      nextUpdate,
      signingAlgorithm: curve,
      signingKey: signer.keys.privateKey,
      entries: revoked.map(({ der }) => ({
        serialNumber: parseCertificate(der).x509.serialNumber,
        revocationDate: issued,
      })),
    });
    return Buffer.from(list.rawData);
  }
}

function authority(): Extension[] {
  return [
    new BasicConstraintsExtension(true, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ];
}

function tcbExtensions(tcb: SnpTcb): Extension[] {
  const arcs = { bootloader: 1, tee: 2, snp: 3, microcode: 8, fmc: 9 } as const;
  return (Object.keys(arcs) as (keyof typeof arcs)[]).flatMap((part) => {
    const value = tcb[part];
    if (value === undefined) return [];
    const integer = value > 127 ? [2, 2, 0, value] : [2, 1, value];
    return [new Extension(`1.3.6.1.4.1.3704.1.3.${arcs[part]}`, false, bytes(Buffer.from(integer)))];
  });
}

async function issue(
  issuer: Issued | undefined,
  subject: string,
  extensions: Extension[],
  notAfter = ends,
): Promise<Issued> {
  const keys = await webcrypto.subtle.generateKey(curve, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.create({
    issuer: issuer?.subject ?? subject,
    subject,
    notBefore: issued,
    notAfter,
    publicKey: keys.publicKey,
    signingKey: (issuer?.keys ?? keys).privateKey,
    signingAlgorithm: curve,
    extensions,
  });
  return { keys, subject, der: Buffer.from(certificate.rawData) };
}

function bytes(buffer: Buffer): ArrayBuffer {
  return buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.length) as ArrayBuffer;
}

/** Offsets of the fields that tests set. */
export const reportFields = {
  version: 0x00,
  guestSvn: 0x04,
  policy: 0x08,
  vmpl: 0x30,
  signatureAlgorithm: 0x34,
  platform: 0x40,
  keyInfo: 0x48,
  reportData: 0x50,
  measurement: 0x90,
  hostData: 0xc0,
  reportedTcb: 0x180,
  processor: 0x188,
  chipId: 0x1a0,
} as const;

/** A report of a Milan machine (version 3), unsigned; `change` may set anything before it is signed. */
export async function mintReport(
  key: { readonly keys: webcrypto.CryptoKeyPair },
  fields: { readonly chipId: Buffer; readonly reportData: Buffer; readonly hostData: Buffer },
  change: (report: Buffer) => void = () => undefined,
): Promise<Buffer> {
  const report = Buffer.alloc(snpReportBytes);
  report.writeUInt32LE(3, reportFields.version);
  report.writeBigUInt64LE(0x3001fn, reportFields.policy);
  report.writeUInt32LE(1, reportFields.signatureAlgorithm);
  report.writeBigUInt64LE(1n, reportFields.platform);
  report.fill(0xaa, reportFields.measurement, reportFields.measurement + 48);
  Buffer.from([3, 0, 0, 0, 0, 0, 8, 115]).copy(report, reportFields.reportedTcb);
  Buffer.from([0x19, 1, 1]).copy(report, reportFields.processor);
  fields.chipId.copy(report, reportFields.chipId);
  fields.reportData.copy(report, reportFields.reportData);
  fields.hostData.copy(report, reportFields.hostData);
  change(report);
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key.keys.privateKey));
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  const signature = sign('sha384', report.subarray(0, snpSignedBytes), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  for (const [index, at] of [snpSignedBytes, snpSignedBytes + 72].entries())
    Buffer.from(signature.subarray(index * 48, index * 48 + 48))
      .reverse()
      .copy(report, at);
  return report;
}
