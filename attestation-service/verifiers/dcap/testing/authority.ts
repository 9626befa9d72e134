import 'reflect-metadata';
import { Extension } from '@peculiar/x509';
import {
  Boolean as Asn1Boolean,
  type BaseBlock,
  Enumerated,
  Integer,
  ObjectIdentifier,
  OctetString,
  Sequence,
} from 'asn1js';
import type { EnrolledRoot } from '../../../endorsements/certificate-path.ts';
import type { PckAuthority } from '../../../endorsements/intel/source.ts';
import {
  type Issued,
  type IssueOptions,
  issue,
  issueRevocationList,
  ownBuffer,
  pem,
  rootOf,
} from '../../testing/authority.ts';

/** What a certificate of a platform says of it (Intel SGX PCK Certificate and CRL Profile, section 1.3.5). */
export interface PlatformFields {
  readonly ppid: Buffer;
  /** 16 versions. */
  readonly tcb: readonly number[];
  readonly pceSvn: number;
  /** Default: the 16 versions, a byte each. */
  readonly cpuSvn?: Buffer;
  readonly pceId: Buffer;
  readonly fmspc: Buffer;
  /** 0 standard, 1 scalable, 2 scalable with integrity. */
  readonly sgxType: number;
  /** Platforms of several packages only, as the configuration. */
  readonly platformInstanceId?: Buffer;
  readonly configuration?: {
    readonly dynamicPlatform: boolean;
    readonly cachedKeys: boolean;
    readonly smtEnabled: boolean;
  };
}

/** The machine of which quotes are minted where a test does not say otherwise. */
export const platform: PlatformFields = {
  ppid: Buffer.alloc(16, 0x50),
  tcb: [5, 5, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0],
  pceSvn: 13,
  pceId: Buffer.alloc(2),
  fmspc: Buffer.from('50806F000000', 'hex'),
  sgxType: 1,
  platformInstanceId: Buffer.alloc(16, 0x51),
  configuration: { dynamicPlatform: true, cachedKeys: false, smtEnabled: true },
};

/** What a test makes another about a certificate of a platform. */
export interface PckOptions extends IssueOptions {
  readonly platform?: Partial<PlatformFields>;
  readonly issuer?: Issued;
  readonly subject?: string;
}

/** What a test makes another about a revocation list. */
export interface ListOptions {
  readonly revoked?: readonly Issued[];
  readonly thisUpdate?: Date;
  readonly nextUpdate?: Date;
  readonly number?: number;
  /** Signs instead of the issuer. */
  readonly signer?: Issued;
}

const ofIntel = 'O=Intel Corporation, L=Santa Clara, ST=CA, C=US';
/** When the test's lists and documents were made, and until when they are current. */
export const issued = new Date('2026-01-01T00:00:00Z');
export const ends = new Date('2033-01-01T00:00:00Z');

/** A test's Intel: the root, both authorities of platforms, who signs TCB info, and the certificate of one platform. */
export class TestIntel {
  readonly rootAuthority: Issued;
  readonly platform: Issued;
  readonly processor: Issued;
  readonly tcbSigner: Issued;
  /** The platform of which quotes are minted by default. */
  readonly machine: Issued;

  private constructor(authorities: readonly [Issued, Issued, Issued, Issued, Issued]) {
    [this.rootAuthority, this.platform, this.processor, this.tcbSigner, this.machine] = authorities;
  }

  static async create(): Promise<TestIntel> {
    const authority = (issuer: Issued | undefined, name: string): Promise<Issued> =>
      issue(issuer, `CN=${name}, ${ofIntel}`, { authority: true, curve: 'P-256' });
    const root = await authority(undefined, 'Intel SGX Root CA');
    const platforms = await authority(root, 'Intel SGX PCK Platform CA');
    const processors = await authority(root, 'Intel SGX PCK Processor CA');
    const signer = await issue(root, `CN=Intel SGX TCB Signing, ${ofIntel}`, { curve: 'P-256' });
    return new TestIntel([root, platforms, processors, signer, await mintPck(platforms)]);
  }

  get root(): EnrolledRoot {
    return rootOf('test Intel', this.rootAuthority);
  }

  /** Certificate and key of a platform. */
  pck(options: PckOptions = {}): Promise<Issued> {
    return mintPck(options.issuer ?? this.platform, options);
  }

  /** PEM of a platform's certificate and those above it, as quotes carry it. */
  chain(leaf: Issued = this.machine, intermediate: Issued = this.platform): string {
    return pem([leaf, intermediate, this.rootAuthority]);
  }

  /** A revocation list, DER. */
  revocationList(of: PckAuthority | 'root', options: ListOptions = {}): Promise<Buffer> {
    const { number = 1, ...rest } = options;
    const extensions = [new Extension('2.5.29.20', false, new Integer({ value: number }).toBER())];
    const issuer = of === 'root' ? this.rootAuthority : this[of];
    return issueRevocationList(issuer, { thisUpdate: issued, nextUpdate: ends, ...rest, extensions });
  }
}

function mintPck(issuer: Issued, options: PckOptions = {}): Promise<Issued> {
  const { platform: changes, subject = `CN=Intel SGX PCK Certificate, ${ofIntel}`, extensions = [], ...rest } = options;
  const sgx = sgxExtension({ ...platform, ...changes });
  return issue(issuer, subject, { curve: 'P-256', ...rest, extensions: [sgx, ...extensions] });
}

const sgxExtensions = '1.2.840.113741.1.13.1';

/** The extension of a platform's certificate. */
export function sgxExtension(fields: PlatformFields): Extension {
  const {
    ppid,
    tcb,
    pceSvn,
    cpuSvn = Buffer.from(tcb),
    pceId,
    fmspc,
    sgxType,
    platformInstanceId,
    configuration,
  } = fields;
  const versions = [
    ...tcb.map((svn, index) => entry(`2.${index + 1}`, new Integer({ value: svn }))),
    entry('2.17', new Integer({ value: pceSvn })),
    entry('2.18', octets(cpuSvn)),
  ];
  const members = [
    entry('1', octets(ppid)),
    entry('2', new Sequence({ value: versions })),
    entry('3', octets(pceId)),
    entry('4', octets(fmspc)),
    entry('5', new Enumerated({ value: sgxType })),
  ];
  if (platformInstanceId !== undefined) members.push(entry('6', octets(platformInstanceId)));
  if (configuration !== undefined) {
    const { dynamicPlatform, cachedKeys, smtEnabled } = configuration;
    const switches = [dynamicPlatform, cachedKeys, smtEnabled];
    const value = switches.map((on, index) => entry(`7.${index + 1}`, new Asn1Boolean({ value: on })));
    members.push(entry('7', new Sequence({ value })));
  }
  return new Extension(sgxExtensions, false, new Sequence({ value: members }).toBER());
}

function entry(arc: string, value: BaseBlock): Sequence {
  return new Sequence({ value: [new ObjectIdentifier({ value: `${sgxExtensions}.${arc}` }), value] });
}

function octets(bytes: Buffer): OctetString {
  return new OctetString({ valueHex: ownBuffer(bytes) });
}
