import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { Certificate, type Extension, KeyUsage, KeyUsageFlags, type Name } from '@peculiar/asn1-x509';
import { derElement, derMembers } from './der.ts';
import { createPublicKey, type KeyObject } from './public-key.ts';
import { signatureScheme, verifyScheme } from './signature-scheme.ts';

const extensionId = { subjectKey: '2.5.29.14', keyUsage: '2.5.29.15', authorityKey: '2.5.29.35' } as const;

/** Short names as OpenSSL prints them; others are printed as their number. */
const shortNames: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.4': 'SN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.9': 'street',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
  '2.5.4.12': 'title',
  '2.5.4.13': 'description',
  '2.5.4.17': 'postalCode',
  '2.5.4.42': 'GN',
  '2.5.4.43': 'initials',
  '2.5.4.46': 'dnQualifier',
  '2.5.4.65': 'pseudonym',
  '0.9.2342.19200300.100.1.1': 'UID',
  '0.9.2342.19200300.100.1.25': 'DC',
  '1.2.840.113549.1.9.1': 'emailAddress',
};

/** The part of node:crypto's `X509Certificate` that verifiers use. */
export class X509Certificate {
  readonly raw: Buffer;
  readonly #certificate: Certificate;

  /** @param source DER, or the text of one PEM certificate. @throws Error for what is no certificate */
  constructor(source: Uint8Array | string) {
    const bytes = Buffer.from(source as Uint8Array);
    const text = bytes[0] === 0x30 ? undefined : bytes.toString('latin1');
    const [, base64] = /-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/.exec(text ?? '') ?? [];
    if (text !== undefined && base64 === undefined) throw new RangeError('no certificate');
    const der = base64 === undefined ? bytes : Buffer.from(base64, 'base64');
    this.raw = Buffer.from(der.subarray(0, derElement(der).size));
    this.#certificate = AsnConvert.parse(this.raw, Certificate);
  }

  /** Lines `CN=…` in the order of the certificate; Node has undefined for an empty name. */
  get subject(): string | undefined {
    return nameText(this.#certificate.tbsCertificate.subject);
  }

  get issuer(): string | undefined {
    return nameText(this.#certificate.tbsCertificate.issuer);
  }

  /** Upper-case hexadecimal, whole bytes, without leading zero bytes. */
  get serialNumber(): string {
    const serial = Buffer.from(this.#certificate.tbsCertificate.serialNumber);
    const hexadecimal = serial.toString('hex').toUpperCase();
    return hexadecimal.replace(/^(00)+(?=..)/, '');
  }

  get validFromDate(): Date {
    return this.#certificate.tbsCertificate.validity.notBefore.getTime();
  }

  get validToDate(): Date {
    return this.#certificate.tbsCertificate.validity.notAfter.getTime();
  }

  get publicKey(): KeyObject {
    const info = AsnConvert.serialize(this.#certificate.tbsCertificate.subjectPublicKeyInfo);
    return createPublicKey({ key: Buffer.from(info), format: 'der', type: 'spki' });
  }

  /** Names, key identifiers, key usage and kind of key permit that `issuer` issued this; signatures are not verified. */
  checkIssued(issuer: X509Certificate): boolean {
    try {
      return this.#names(issuer);
    } catch {
      return false; // As Node, which takes no certificate with a malformed extension for an issuer's or an issued one.
    }
  }

  #names(issuer: X509Certificate): boolean {
    const [own, other] = [this.#certificate.tbsCertificate, issuer.#certificate.tbsCertificate];
    if (canonicalName(own.issuer) !== canonicalName(other.subject)) return false;
    const authority = authorityKey(this.#extension(extensionId.authorityKey));
    const subjectKey = issuer.#extension(extensionId.subjectKey);
    const key = subjectKey && AsnConvert.parse(subjectKey, OctetString).buffer;
    if (authority.key !== undefined && key !== undefined && !authority.key.equals(Buffer.from(key))) return false;
    if (authority.serial !== undefined && !authority.serial.equals(Buffer.from(other.serialNumber))) return false;
    const usage = issuer.#extension(extensionId.keyUsage);
    if (usage !== undefined && (AsnConvert.parse(usage, KeyUsage).toNumber() & KeyUsageFlags.keyCertSign) === 0)
      return false;
    return signatureScheme(this.#certificate.signatureAlgorithm)?.fits(issuer.publicKey) ?? false;
  }

  verify(publicKey: KeyObject): boolean {
    const { signatureAlgorithm, signatureValue, tbsCertificate, tbsCertificateRaw } = this.#certificate;
    if (tbsCertificateRaw === undefined || !signatureAlgorithm.isEqual(tbsCertificate.signature)) return false;
    return verifyScheme(signatureAlgorithm, publicKey, Buffer.from(tbsCertificateRaw), Buffer.from(signatureValue));
  }

  #extension(id: string): Buffer | undefined {
    const found = this.#certificate.tbsCertificate.extensions?.find(({ extnID }: Extension) => extnID === id);
    return found && Buffer.from(found.extnValue.buffer);
  }
}

/**
 * What AuthorityKeyIdentifier (RFC 5280 section 4.2.1.1) says of the issuer's key and certificate. The library's own class
 * would bring names of all kinds along, which are not compared.
 *
 * @throws RangeError
 */
function authorityKey(der: Buffer | undefined): { readonly key?: Buffer; readonly serial?: Buffer } {
  const members = der === undefined ? [] : derMembers(der);
  const found = new Map(members.map(({ tag, content }) => [tag, content]));
  const unknown = [...found.keys()].filter((tag) => ![0x80, 0xa1, 0x82].includes(tag));
  if (unknown.length > 0 || found.size < members.length) throw new RangeError('malformed authority key identifier');
  const [key, serial] = [found.get(0x80), found.get(0x82)];
  return { ...(key === undefined ? {} : { key }), ...(serial === undefined ? {} : { serial }) };
}

function valueText(value: { readonly anyValue?: ArrayBuffer; toString(): string }): string {
  return value.toString();
}

function nameText(name: Name): string | undefined {
  const lines = name.map((parts) =>
    parts.map(({ type, value }) => `${shortNames[type] ?? type}=${escaped(valueText(value))}`).join(' + '),
  );
  return lines.length === 0 ? undefined : lines.join('\n');
}

/** As OpenSSL escapes (RFC 2253, and control characters). */
function escaped(text: string): string {
  return text
    .replace(/[,+"\\<>;]/g, '\\$&')
    .replace(/^[ #]| $/g, '\\$&')
    .replace(/\p{Cc}/gu, (character) => {
      const code = character.charCodeAt(0);
      return code < 0x80 ? `\\${code.toString(16).toUpperCase().padStart(2, '0')}` : character;
    });
}

/** Names are compared without case and repeated white space (RFC 5280 section 7.1), as OpenSSL does. */
function canonicalName(name: Name): string {
  return JSON.stringify(
    name.map((parts) =>
      parts.map(({ type, value }) => [type, valueText(value).trim().replace(/\s+/g, ' ').toLowerCase()]),
    ),
  );
}
