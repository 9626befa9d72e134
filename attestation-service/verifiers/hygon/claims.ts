import type { CsvEvidence, CsvReport, DcuReport } from '@sealpod/protocol/hygon';
import type { JsonObject } from '@sealpod/protocol/json';

/**
 * The claims of a verified report: upstream's, and under `sealpod` where the chip's certificates came from. The serial number
 * is proved only where it was what they were asked for by; certificates that came along could be any chip's.
 */
export function csvClaims(
  { report, serialNumber }: CsvEvidence,
  source: string | null,
  events: readonly JsonObject[] | undefined,
): JsonObject {
  const hex = (bytes: Buffer): string => bytes.toString('hex');
  return {
    version: `${report.version}`,
    policy: policyClaims(report),
    user_pubkey_digest: hex(report.userPublicKeyDigest),
    vm_id: hex(report.vmId),
    vm_version: hex(report.vmVersion),
    report_data: hex(report.reportData),
    mnonce: hex(report.mnonce),
    measure: hex(report.measure),
    sig_usage: hex(littleEndian(report.signatureUsage)),
    sig_algo: hex(littleEndian(report.signatureAlgorithm)),
    ...(report.anonce === undefined ? {} : { anonce: hex(littleEndian(report.anonce)) }),
    ...extensionClaims(report),
    serial_number: serialNumber,
    ...(events === undefined ? {} : { uefi_event_logs: events }),
    sealpod: {
      chip_certificates: source,
      serial_number_proved: source !== null && source !== 'evidence',
    },
  };
}

function policyClaims({ policy }: CsvReport): JsonObject {
  return {
    nodbg: policy.nodbg,
    noks: policy.noks,
    es: policy.es,
    nosend: policy.nosend,
    domain: policy.domain,
    csv: policy.csv,
    csv3: policy.csv3,
    asid_reuse: policy.asidReuse,
    hsk_version: policy.hskVersion,
    cek_version: policy.cekVersion,
    api_major: policy.apiMajor,
    api_minor: policy.apiMinor,
  };
}

function extensionClaims({ extension }: CsvReport): JsonObject {
  if (extension === undefined) return {};
  const registers = extension.rtmrs.map((value, index) => [`rtmr${index}`, value.toString('hex')]);
  return {
    build: extension.build,
    rtmr_version: extension.rtmrVersion,
    reserved0: extension.reserved0.toString('hex'),
    ...Object.fromEntries(registers),
    reserved1: extension.reserved1.toString('hex'),
  };
}

/** The claims of one accelerator, as upstream has them. */
export function dcuClaims(report: DcuReport): JsonObject {
  return {
    body: {
      version: report.version,
      chip_id: report.chipId.toString('hex'),
      user_data: report.userData.toString('hex'),
      measure: report.measure.toString('hex'),
      reserved: report.reserved.toString('hex'),
      sig_usage: report.signatureUsage.toString(16),
      sig_algo: report.signatureAlgorithm.toString(16),
    },
    report_data: report.userData.toString('hex'),
  };
}

function littleEndian(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
