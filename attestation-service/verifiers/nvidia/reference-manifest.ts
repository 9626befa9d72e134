import { createHash, type KeyObject, verify } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { DOMParser, type Element } from '@xmldom/xmldom';
import { C14nCanonicalization, SignedXml } from 'xml-crypto';
import { type Certificate, parseCertificate } from '../../endorsements/certificate.ts';

/** What a device must measure at an index. */
export interface ReferenceMeasurement {
  /** As reports count: the manifest counts from 0, reports from 1. */
  readonly index: number;
  readonly name: string;
  /** Digests, each of which is right. */
  readonly values: readonly Buffer[];
}

/** The least security version that a device may tell in a field of its opaque data. */
export interface ReferenceVersion {
  /** Type of the field. */
  readonly type: number;
  readonly name: string;
  readonly least: number;
}

/**
 * A reference integrity manifest (TCG RIM information model, as a SWID tag of ISO 19770-2:2015) of a driver or of firmware.
 * Its content comes from the signed bytes alone; whether `certificates` lead to NVIDIA is the caller's to verify.
 */
export interface ReferenceManifest {
  readonly tagId: string;
  /** Version of what the manifest is about: `colloquialVersion`. */
  readonly version: string;
  readonly firmwareManufacturerId?: string;
  /** Only those that count. */
  readonly measurements: readonly ReferenceMeasurement[];
  readonly versions: readonly ReferenceVersion[];
  /** Certificates of the signature, leaf first. */
  readonly certificates: readonly Certificate[];
}

const maxManifestCharacters = 1024 * 1024;
const maxMeasurements = 256;
const maxCertificates = 8;
const signatureSpace = 'http://www.w3.org/2000/09/xmldsig#';
const tagSpace = 'http://standards.iso.org/iso/19770/-2/2015/schema.xsd';
const manifestSpace =
  'https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/';
const digestSpace = 'http://www.w3.org/2001/04/xmlenc#sha384';
const digestBytes = 48;
const opaqueSpace = 'https://docs.nvidia.com/attestation/specs/latest/opaque-data.html';
/** Resources from this index on are about fields of the opaque data, by their type (NVIDIA's attestation SDK). */
const opaqueBase = 0x1000;

/**
 * Parses a manifest and verifies its XML signature (XMLDSig core 1.1: enveloped, the whole document, ECDSA) by the key of
 * its first certificate. What the schema demands of the members that are used is checked; the rest of the schema is not.
 *
 * @throws SealpodError EV_FORMAT, EV_SIGNATURE, REQUEST_TOO_LARGE
 */
export function readReferenceManifest(text: string): ReferenceManifest {
  if (text.length > maxManifestCharacters)
    throw new SealpodError('REQUEST_TOO_LARGE', 'a reference manifest is too large', {
      expected: `at most ${maxManifestCharacters} characters`,
    });
  const root = parseXml(text);
  const signatures = Array.from(root.getElementsByTagNameNS(signatureSpace, 'Signature'));
  const [signature] = signatures;
  if (signature === undefined || signatures.length > 1 || signature.parentNode !== root)
    throw malformed('one signature in the document element', `${signatures.length}`);
  const certificates = readCertificates(signature);
  const [signer] = certificates;
  if (signer === undefined) throw malformed('the certificate of the signer', 'none');
  return { ...readTag(parseXml(signedContent(text, signature.toString(), signer.x509.publicKey))), certificates };
}

function parseXml(text: string): Element {
  // No document type, so no entities: nothing can grow or be fetched.
  if (/<!DOCTYPE|<!ENTITY/i.test(text)) throw malformed('no document type', 'one');
  try {
    const onError = (level: string, message: string): void => {
      throw new RangeError(`${level}: ${message.slice(0, 200)}`);
    };
    const { documentElement } = new DOMParser({ onError }).parseFromString(text, 'text/xml');
    if (documentElement === null) throw new RangeError('no element');
    return documentElement;
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'malformed reference manifest', {
      cause,
      actual: cause instanceof Error ? cause.message : String(cause),
    });
  }
}

function readCertificates(signature: Element): Certificate[] {
  const elements = Array.from(signature.getElementsByTagNameNS(signatureSpace, 'X509Certificate'));
  if (elements.length > maxCertificates)
    throw malformed(`at most ${maxCertificates} certificates`, `${elements.length}`);
  return elements.map(({ textContent }) => parseCertificate(Buffer.from(textContent ?? '', 'base64')));
}

const hashes = { sha256: 'sha256', sha384: 'sha384', sha512: 'sha512' } as const;
const moreSpace = 'http://www.w3.org/2001/04/xmldsig-more#';
const digestMethods: Readonly<Record<string, keyof typeof hashes>> = {
  'http://www.w3.org/2001/04/xmlenc#sha256': 'sha256',
  [`${moreSpace}sha384`]: 'sha384',
  'http://www.w3.org/2001/04/xmlenc#sha512': 'sha512',
};

/** Canonical XML 1.1 differs from 1.0 only in attributes of namespace xml, which a whole document inherits from nowhere. */
class Canonical11 extends C14nCanonicalization {
  override getAlgorithmName(): string {
    return 'http://www.w3.org/2006/12/xml-c14n11';
  }
}

/** The canonical bytes that the signature covers, as text. */
function signedContent(text: string, signature: string, key: KeyObject): string {
  const canonical10 = 'http://www.w3.org/TR/2001/REC-xml-c14n-20010315';
  const enveloped = `${signatureSpace}enveloped-signature`;
  const signed = new SignedXml({
    publicCert: key.export({ format: 'pem', type: 'spki' }),
    getCertFromKeyInfo: () => null,
  });
  const { [canonical10]: plain, [enveloped]: envelope } = signed.CanonicalizationAlgorithms;
  if (plain === undefined || envelope === undefined)
    throw new SealpodError('INTERNAL', 'the XML signature library lacks an algorithm');
  signed.CanonicalizationAlgorithms = {
    [canonical10]: plain,
    [enveloped]: envelope,
    'http://www.w3.org/2006/12/xml-c14n11': Canonical11,
  };
  signed.HashAlgorithms = Object.fromEntries(
    Object.entries(digestMethods).map(([name, hash]) => [name, digestAlgorithm(name, hash)]),
  );
  signed.SignatureAlgorithms = Object.fromEntries(
    Object.values(hashes).map((hash) => [`${moreSpace}ecdsa-${hash}`, ecdsa(`${moreSpace}ecdsa-${hash}`, hash, key)]),
  );
  try {
    signed.loadSignature(signature);
    if (!signed.checkSignature(text)) throw new RangeError('it does not verify');
  } catch (cause) {
    throw new SealpodError('EV_SIGNATURE', 'the signature of a reference manifest does not verify', {
      cause,
      expected: 'an enveloped ECDSA signature by its first certificate',
      actual: cause instanceof Error ? cause.message.slice(0, 200) : String(cause),
    });
  }
  const references = signed.getSignedReferences();
  const [content] = references;
  // The one reference has to be to the whole document: else something unsigned stands beside what was signed.
  const whole = signed.getReferences().every(({ uri }) => uri === '');
  if (content === undefined || references.length > 1 || !whole)
    throw malformed('a signature of the whole document', `${references.length} references`);
  return content;
}

function digestAlgorithm(name: string, hash: string) {
  return class {
    getHash(xml: string): string {
      return createHash(hash).update(xml, 'utf8').digest('base64');
    }
    getAlgorithmName(): string {
      return name;
    }
  };
}

function ecdsa(name: string, hash: string, key: KeyObject) {
  return class {
    getSignature(): never {
      throw new SealpodError('INTERNAL', 'manifests are only verified');
    }
    verifySignature(material: string, _key: unknown, value: string): boolean {
      const isElliptic = key.asymmetricKeyType === 'ec';
      return (
        isElliptic &&
        verify(hash, Buffer.from(material), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(value, 'base64'))
      );
    }
    getAlgorithmName(): string {
      return name;
    }
  };
}

function readTag(root: Element): Omit<ReferenceManifest, 'certificates'> {
  if (root.namespaceURI !== tagSpace || root.localName !== 'SoftwareIdentity')
    throw malformed('SoftwareIdentity', root.tagName);
  const meta = child(root, 'Meta');
  const resources = Array.from(child(root, 'Payload').getElementsByTagNameNS(tagSpace, 'Resource')).filter(
    (resource) => resource.getAttribute('type') === 'Measurement',
  );
  if (resources.length > maxMeasurements)
    throw malformed(`at most ${maxMeasurements} measurements`, `${resources.length}`);
  const indices = resources.map((resource) => naturalNumber(resource, 'index'));
  if (new Set(indices).size !== indices.length) throw malformed('each index once', indices.join(' '));
  const firmwareManufacturerId = meta.getAttributeNS(manifestSpace, 'FirmwareManufacturerId');
  return {
    tagId: attribute(root, 'tagId'),
    version: attribute(meta, 'colloquialVersion'),
    ...(firmwareManufacturerId === null || firmwareManufacturerId === '' ? {} : { firmwareManufacturerId }),
    measurements: resources.filter((_, at) => (indices[at] ?? 0) < opaqueBase).flatMap(measurement),
    versions: resources.filter((_, at) => (indices[at] ?? 0) >= opaqueBase).flatMap(securityVersion),
  };
}

function isActive(resource: Element): boolean {
  const active = attribute(resource, 'active');
  if (!['True', 'False', 'true', 'false'].includes(active)) throw malformed('active True or False', active);
  return active.toLowerCase() === 'true';
}

function securityVersion(resource: Element): ReferenceVersion[] {
  if (!isActive(resource)) return [];
  const type = naturalNumber(resource, 'index') - opaqueBase;
  const least = resource.getAttributeNS(opaqueSpace, 'minSvn') ?? '';
  if (type > 0xffff || !/^\d{1,5}$/.test(least))
    throw malformed('minSvn of a field of opaque data', least.slice(0, 40));
  return [{ type, name: attribute(resource, 'name'), least: Number(least) }];
}

function measurement(resource: Element): ReferenceMeasurement[] {
  const active = isActive(resource);
  const index = naturalNumber(resource, 'index') + 1;
  const size = naturalNumber(resource, 'size');
  const alternatives = naturalNumber(resource, 'alternatives');
  if (index > 255 || size !== digestBytes || alternatives < 1 || alternatives > maxMeasurements)
    throw malformed('an index to 254, 48 bytes, an alternative', `${index - 1}, ${size}, ${alternatives}`);
  const values = Array.from({ length: alternatives }, (_, number) => {
    const hexadecimal = resource.getAttributeNS(digestSpace, `Hash${number}`) ?? '';
    if (!/^[0-9a-fA-F]{96}$/.test(hexadecimal)) throw malformed(`Hash${number} of 48 bytes`, hexadecimal.slice(0, 100));
    return Buffer.from(hexadecimal, 'hex');
  });
  return active ? [{ index, name: attribute(resource, 'name'), values }] : [];
}

function child(element: Element, name: string): Element {
  const found = Array.from(element.childNodes).filter(
    (node): node is Element =>
      node.nodeType === node.ELEMENT_NODE &&
      (node as Element).namespaceURI === tagSpace &&
      (node as Element).localName === name,
  );
  const [first] = found;
  if (first === undefined || found.length > 1) throw malformed(`one ${name}`, `${found.length}`);
  return first;
}

function attribute(element: Element, name: string): string {
  const value = element.getAttribute(name);
  if (value === null || value === '') throw malformed(`attribute ${name} of ${element.tagName}`, 'none');
  return value;
}

function naturalNumber(element: Element, name: string): number {
  const value = attribute(element, name);
  if (!/^\d{1,5}$/.test(value)) throw malformed(`a number as ${name}`, value.slice(0, 40));
  return Number(value);
}

function malformed(expected: string, actual: string): SealpodError {
  return new SealpodError('EV_FORMAT', 'malformed reference manifest', { expected, actual });
}
