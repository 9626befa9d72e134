import { X509Certificate } from 'node:crypto';
import { AsnConvert } from '@peculiar/asn1-schema';
import {
  BasicConstraints,
  ExtendedKeyUsage,
  KeyUsage,
  KeyUsageFlags,
  Certificate as X509Structure,
} from '@peculiar/asn1-x509';
import { SealpodError } from '@sealpod/protocol/errors';
import { remembered } from './remembered.ts';

/**
 * A certificate and what path validation needs to know of it. Node's own class checks signatures and dates but does not
 * show extensions, which are read from the same bytes.
 */
export interface Certificate {
  readonly x509: X509Certificate;
  readonly isAuthority: boolean;
  /** How many intermediate certificates may follow; undefined is any number. */
  readonly pathLength?: number;
  /** Undefined where the extension is absent, and so any use is permitted. */
  readonly keyUsage?: {
    readonly keyCertSign: boolean;
    readonly cRLSign: boolean;
    readonly keyEncipherment: boolean;
    readonly keyAgreement: boolean;
  };
  /** Object identifiers; undefined where the extension is absent. */
  readonly extendedKeyUsage?: readonly string[];
  /** Values of the extensions, by object identifier. */
  readonly extensions: ReadonlyMap<string, Buffer>;
  /** Critical extensions that nothing here understands: a certificate that has one is not usable (RFC 5280 §4.2). */
  readonly unknownCritical: readonly string[];
}

/** Extensions that are processed, or that change nothing about whether a path is valid for attestation. */
const understood = new Set([
  '2.5.29.9', // subject directory attributes (TPM specification, TCG assertions)
  '2.5.29.14', // subject key identifier
  '2.5.29.15', // key usage
  '2.5.29.17', // subject alternative name (TPM manufacturer, model, version)
  '2.5.29.19', // basic constraints
  '2.5.29.32', // certificate policies
  '2.5.29.35', // authority key identifier
  '2.5.29.37', // extended key usage
]);

/** Evidence of one machine brings the same certificates each time. */
const certificatesKept = 1024;

/**
 * Parses one DER certificate. Nothing is verified. The same bytes give the same object, while they are remembered.
 *
 * @throws SealpodError EV_FORMAT
 */
export const parseCertificate = remembered(certificatesKept, parse);

function parse(der: Uint8Array): Certificate {
  try {
    const x509 = new X509Certificate(der);
    if (x509.raw.length !== der.length) throw new RangeError('bytes after the certificate');
    // Decoded only now: a key that cannot be would be an untyped error in the middle of a verification.
    if (x509.publicKey.asymmetricKeyType === undefined) throw new RangeError('no public key of a known kind');
    // A date that is none compares as false with every other, and cannot be told to anyone.
    if (Number.isNaN(x509.validFromDate.getTime()) || Number.isNaN(x509.validToDate.getTime()))
      throw new RangeError('a date that is none');
    const { extensions: listed = [] } = AsnConvert.parse(x509.raw, X509Structure).tbsCertificate;
    const extensions = new Map(
      Array.from(listed, ({ extnID, extnValue }) => [extnID, Buffer.from(extnValue.buffer)] as const),
    );
    if (extensions.size !== listed.length) throw new RangeError('an extension is there twice');
    const read = <T>(id: string, type: new () => T): T | undefined => {
      const value = extensions.get(id);
      return value && AsnConvert.parse(value, type);
    };
    const basic = read('2.5.29.19', BasicConstraints);
    const usages = read('2.5.29.15', KeyUsage)?.toNumber();
    const extended = read('2.5.29.37', ExtendedKeyUsage);
    const has = (flag: KeyUsageFlags): boolean => ((usages ?? 0) & flag) !== 0;
    return {
      x509,
      isAuthority: basic?.cA ?? false,
      ...(basic?.pathLenConstraint === undefined ? {} : { pathLength: basic.pathLenConstraint }),
      ...(usages === undefined
        ? {}
        : {
            keyUsage: {
              keyCertSign: has(KeyUsageFlags.keyCertSign),
              cRLSign: has(KeyUsageFlags.cRLSign),
              keyEncipherment: has(KeyUsageFlags.keyEncipherment),
              keyAgreement: has(KeyUsageFlags.keyAgreement),
            },
          }),
      ...(extended === undefined ? {} : { extendedKeyUsage: Array.from(extended, String) }),
      extensions,
      unknownCritical: Array.from(listed, ({ critical, extnID }) =>
        critical && !understood.has(extnID) ? extnID : '',
      ).filter((id) => id !== ''),
    };
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'malformed certificate', { cause });
  }
}

/** Parses every certificate of a PEM text. @throws SealpodError EV_FORMAT, also where there is none */
export function parsePemCertificates(pem: string): Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new SealpodError('EV_FORMAT', 'no certificate in the PEM text');
  return blocks.map((block) => parseCertificate(Buffer.from(block.replace(/-----[^-]+-----|\s/g, ''), 'base64')));
}
