import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonOctets,
  asJsonText,
  integerMember,
  type JsonObject,
  type JsonValue,
  optionalMember,
} from '../json/index.ts';
import { snpGenerationOf } from './generation.ts';
import { snpReportBytes, snpSignedBytes } from './report.ts';
import { encodeSnpTcb, type SnpTcb } from './tcb.ts';

const code = 'EV_FORMAT';
const maxCertificates = 8;
const maxCertificateBytes = 8192;

/** A certificate that came along: type as the host's table names it, and DER or PEM bytes. */
export interface SnpCertificate {
  readonly type: string;
  readonly bytes: Buffer;
}

/** Evidence of TEE `snp` as guest-components sends it, the report turned back into its bytes. */
export interface SnpEvidence {
  readonly report: Buffer;
  readonly certificates: readonly SnpCertificate[];
}

/**
 * Reads `{"attestation_report": {...}, "cert_chain": null | [{"cert_type", "data"}]}` (trustee: snp). The report comes as
 * the members of a parsed structure; its bytes, which are what is signed, are made again from them.
 *
 * @throws SealpodError EV_FORMAT naming the member, REQUEST_TOO_LARGE
 */
export function parseSnpEvidence(evidence: JsonValue): SnpEvidence {
  const root = asJsonObject(evidence, 'snp evidence', code);
  const chain = optionalMember(root, 'cert_chain') ?? [];
  if (!Array.isArray(chain) || chain.length > maxCertificates)
    throw new SealpodError(code, `cert_chain must be null or an array of at most ${maxCertificates}`);
  return {
    report: encodeReport(asJsonObject(optionalMember(root, 'attestation_report'), 'attestation_report', code)),
    certificates: chain.map((entry: JsonValue) => {
      const item = asJsonObject(entry, 'cert_chain[]', code);
      return {
        type: certificateType(optionalMember(item, 'cert_type')),
        bytes: byteArray(item, 'data', maxCertificateBytes),
      };
    }),
  };
}

/** A name, or `{"OTHER": uuid}` for types that the host's table has beyond those. */
function certificateType(value: JsonValue | undefined): string {
  return typeof value === 'object' && value !== null ? 'OTHER' : asJsonText(value, 'cert_type', code);
}

function encodeReport(report: JsonObject): Buffer {
  const bytes = Buffer.alloc(snpReportBytes);
  const version = integer(report, 'version', 0xffff_ffff);
  const processor = (['cpuid_fam_id', 'cpuid_mod_id', 'cpuid_step'] as const).map((name) =>
    optionalInteger(report, name, 0xff),
  );
  const [family = 0, model = 0] = processor;
  const generation = version < 3 ? undefined : snpGenerationOf(family, model);
  const tcb = (name: string, at: number): void => {
    encodeSnpTcb(readTcb(asJsonObject(optionalMember(report, name), name, code)), generation).copy(bytes, at);
  };
  const fixed = (name: string, at: number, length: number): void => {
    byteArray(report, name, length, length).copy(bytes, at);
  };
  bytes.writeUInt32LE(version, 0);
  bytes.writeUInt32LE(integer(report, 'guest_svn', 0xffff_ffff), 4);
  bytes.writeBigUInt64LE(BigInt(integerMember64(report, 'policy')), 8);
  fixed('family_id', 0x10, 16);
  fixed('image_id', 0x20, 16);
  bytes.writeUInt32LE(integer(report, 'vmpl', 0xffff_ffff), 0x30);
  bytes.writeUInt32LE(integer(report, 'sig_algo', 0xffff_ffff), 0x34);
  tcb('current_tcb', 0x38);
  bytes.writeBigUInt64LE(BigInt(integerMember64(report, 'plat_info')), 0x40);
  bytes.writeUInt32LE(integer(report, 'key_info', 0xffff_ffff), 0x48);
  fixed('report_data', 0x50, 64);
  fixed('measurement', 0x90, 48);
  fixed('host_data', 0xc0, 32);
  fixed('id_key_digest', 0xe0, 48);
  fixed('author_key_digest', 0x110, 48);
  fixed('report_id', 0x140, 32);
  fixed('report_id_ma', 0x160, 32);
  tcb('reported_tcb', 0x180);
  if (version >= 3) for (const [index, value] of processor.entries()) bytes[0x188 + index] = value;
  fixed('chip_id', 0x1a0, 64);
  tcb('committed_tcb', 0x1e0);
  firmware(report, 'current', bytes, 0x1e8);
  firmware(report, 'committed', bytes, 0x1ec);
  tcb('launch_tcb', 0x1f0);
  if (version >= 5) {
    bytes.writeBigUInt64LE(BigInt(integerMember64(report, 'launch_mit_vector')), 0x1f8);
    bytes.writeBigUInt64LE(BigInt(integerMember64(report, 'current_mit_vector')), 0x200);
  }
  const signature = asJsonObject(optionalMember(report, 'signature'), 'signature', code);
  byteArray(signature, 'r', 72, 72).copy(bytes, snpSignedBytes);
  byteArray(signature, 's', 72, 72).copy(bytes, snpSignedBytes + 72);
  return bytes;
}

function readTcb(tcb: JsonObject): SnpTcb {
  const fmc = optionalMember(tcb, 'fmc') ?? null;
  return {
    ...(fmc === null ? {} : { fmc: integer(tcb, 'fmc', 0xff) }),
    bootloader: integer(tcb, 'bootloader', 0xff),
    tee: integer(tcb, 'tee', 0xff),
    snp: integer(tcb, 'snp', 0xff),
    microcode: integer(tcb, 'microcode', 0xff),
  };
}

function firmware(report: JsonObject, name: string, bytes: Buffer, at: number): void {
  const version = asJsonObject(optionalMember(report, name), name, code);
  for (const [index, part] of (['build', 'minor', 'major'] as const).entries())
    bytes[at + index] = integer(version, part, 0xff);
}

function integer(object: JsonObject, name: string, largest: number): number {
  const value = integerMember(object, name, code);
  if (value < 0 || value > largest)
    throw new SealpodError(code, `${name} is out of range`, { expected: `0 to ${largest}`, actual: `${value}` });
  return value;
}

/** A 64-bit number; beyond 2^53 JSON numbers lose bits here, so that such a one is refused and not guessed. */
function integerMember64(object: JsonObject, name: string): number {
  return integer(object, name, Number.MAX_SAFE_INTEGER);
}

function optionalInteger(object: JsonObject, name: string, largest: number): number {
  return (optionalMember(object, name) ?? null) === null ? 0 : integer(object, name, largest);
}

function byteArray(object: JsonObject, name: string, most: number, least = 0): Buffer {
  return asJsonOctets(optionalMember(object, name), name, { least, most, code });
}
