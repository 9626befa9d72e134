import { SealpodError } from '@sealpod/protocol/errors';
import {
  Boolean as Asn1Boolean,
  type BaseBlock,
  Enumerated,
  Integer,
  ObjectIdentifier,
  OctetString,
  Sequence,
} from 'asn1js';
import type { Certificate } from '../../endorsements/certificate.ts';
import { derValue } from '../../endorsements/der.ts';
import type { PckAuthority } from '../../endorsements/intel/source.ts';

/** The SGX extension of a platform's certificate (SGX PCK Certificate and CRL Specification, section 1.3.5). */
export interface PckCertificate {
  readonly certificate: Certificate;
  readonly authority: PckAuthority;
  /** 16 bytes. */
  readonly ppid: Buffer;
  /** 16 versions of the platform's TCB. */
  readonly components: readonly number[];
  readonly pceSvn: number;
  /** 2 bytes. */
  readonly pceId: Buffer;
  /** 6 bytes. */
  readonly fmspc: Buffer;
  /** 0 Standard, 1 Scalable, 2 Scalable with Integrity. */
  readonly sgxType: number;
  /** 16 bytes; of platforms with several packages. */
  readonly platformInstanceId?: Buffer;
  readonly configuration?: {
    readonly dynamicPlatform: boolean;
    readonly cachedKeys: boolean;
    readonly smtEnabled: boolean;
  };
}

const extension = '1.2.840.113741.1.13.1';
const componentCount = 16;
const issuers: Readonly<Record<string, PckAuthority>> = {
  'Intel SGX PCK Platform CA': 'platform',
  'Intel SGX PCK Processor CA': 'processor',
};

/** Whether it is a platform's, by its extension alone. */
export function hasPlatformExtension({ extensions }: Certificate): boolean {
  return extensions.has(extension);
}

const known = new WeakMap<Certificate, PckCertificate>();

/** @throws SealpodError EV_FORMAT where the extension is missing or malformed, EV_CERT_CHAIN for another issuer */
export function readPckCertificate(certificate: Certificate): PckCertificate {
  const found = known.get(certificate) ?? read(certificate);
  known.set(certificate, found);
  return found;
}

function read(certificate: Certificate): PckCertificate {
  const value = certificate.extensions.get(extension);
  if (value === undefined) throw malformed('there is none');
  const fields = fieldsOf(parse(value), extension);
  const tcb = fieldsOf(member(fields, '2'), `${extension}.2`);
  const configuration = fields.get('7');
  const settings = configuration && fieldsOf(configuration, `${extension}.7`);
  const type = member(fields, '5');
  if (!(type instanceof Enumerated)) throw malformed('the type of SGX is no ENUMERATED');
  const instance = fields.get('6');
  return {
    certificate,
    authority: authorityOf(certificate),
    ppid: octets(member(fields, '1'), 16),
    components: Array.from({ length: componentCount }, (_, index) => byte(member(tcb, `${index + 1}`))),
    pceSvn: unsigned(member(tcb, '17'), 0xffff),
    pceId: octets(member(fields, '3'), 2),
    fmspc: octets(member(fields, '4'), 6),
    sgxType: type.valueBlock.valueDec,
    ...(instance === undefined ? {} : { platformInstanceId: octets(instance, 16) }),
    ...(settings === undefined
      ? {}
      : {
          configuration: {
            dynamicPlatform: flag(settings.get('1')),
            cachedKeys: flag(settings.get('2')),
            smtEnabled: flag(settings.get('3')),
          },
        }),
  };
}

function authorityOf({ x509 }: Certificate): PckAuthority {
  const name = /(?:^|\n)CN=([^\n]*)/.exec(x509.issuer)?.[1] ?? '';
  const authority = issuers[name];
  if (authority === undefined || !Object.hasOwn(issuers, name)) {
    throw new SealpodError('EV_CERT_CHAIN', 'the certificate of the platform has another issuer', {
      expected: Object.keys(issuers).join(' or '),
      actual: name.slice(0, 64),
    });
  }
  return authority;
}

/** `SEQUENCE OF SEQUENCE { OBJECT IDENTIFIER, value }` by what follows `prefix` in the identifier. */
function fieldsOf(block: BaseBlock, prefix: string): Map<string, BaseBlock> {
  const fields = new Map<string, BaseBlock>();
  for (const item of sequence(block)) {
    const [id, value] = sequence(item);
    if (!(id instanceof ObjectIdentifier) || value === undefined)
      throw malformed('a field without identifier or value');
    const name = id.valueBlock.toString();
    if (!name.startsWith(`${prefix}.`)) throw malformed(`a field ${name}`);
    const short = name.slice(prefix.length + 1);
    if (fields.has(short)) throw malformed(`field ${name} is there twice`);
    fields.set(short, value);
  }
  return fields;
}

function parse(der: Buffer): BaseBlock {
  const value = derValue(der);
  if (value === undefined) throw malformed('it is no DER value');
  return value;
}

function sequence(block: BaseBlock): readonly BaseBlock[] {
  if (!(block instanceof Sequence)) throw malformed('no SEQUENCE where one belongs');
  return block.valueBlock.value;
}

function member(fields: ReadonlyMap<string, BaseBlock>, name: string): BaseBlock {
  const value = fields.get(name);
  if (value === undefined) throw malformed(`field ${name} is missing`);
  return value;
}

function octets(block: BaseBlock, length: number): Buffer {
  const bytes = block instanceof OctetString ? Buffer.from(block.valueBlock.valueHexView) : undefined;
  if (bytes?.length !== length) throw malformed(`no OCTET STRING of ${length} bytes`);
  return bytes;
}

function byte(block: BaseBlock): number {
  return unsigned(block, 0xff);
}

function unsigned(block: BaseBlock, most: number): number {
  const value = block instanceof Integer ? block.valueBlock.valueDec : -1;
  if (!Number.isInteger(value) || value < 0 || value > most) throw malformed(`no INTEGER from 0 to ${most}`);
  return value;
}

function flag(block: BaseBlock | undefined): boolean {
  return block instanceof Asn1Boolean && block.valueBlock.value;
}

function malformed(reason: string): SealpodError {
  return new SealpodError('EV_FORMAT', 'malformed SGX extension in the certificate of a platform', { actual: reason });
}
