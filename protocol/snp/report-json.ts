import { SealpodError } from '../errors.ts';
import type { JsonObject } from '../json/index.ts';
import { snpReportBytes, snpSignedBytes } from './report.ts';

/**
 * A report, or what says it is one, as the members that guest-components sends (trustee: snp). Numbers of 64 bits lose
 * precision beyond 2^53, where a real report has none.
 *
 * @throws SealpodError EV_FORMAT for another length
 */
export function snpReportAsJson(report: Buffer): JsonObject {
  if (report.length !== snpReportBytes) {
    throw new SealpodError('EV_FORMAT', 'an SNP report has another length', {
      expected: `${snpReportBytes} bytes`,
      actual: `${report.length}`,
    });
  }
  const turin = report[0x188] === 0x1a;
  const array = (at: number, length: number): number[] => [...report.subarray(at, at + length)];
  const tcb = (at: number): JsonObject => {
    const part = (offset: number): number => report[at + offset] ?? 0;
    return turin
      ? { fmc: part(0), bootloader: part(1), tee: part(2), snp: part(3), microcode: part(7) }
      : { fmc: null, bootloader: part(0), tee: part(1), snp: part(6), microcode: part(7) };
  };
  const firmware = (at: number): JsonObject => ({
    build: report[at] ?? 0,
    minor: report[at + 1] ?? 0,
    major: report[at + 2] ?? 0,
  });
  const version = report.readUInt32LE(0);
  return {
    version,
    guest_svn: report.readUInt32LE(4),
    policy: Number(report.readBigUInt64LE(8)),
    family_id: array(0x10, 16),
    image_id: array(0x20, 16),
    vmpl: report.readUInt32LE(0x30),
    sig_algo: report.readUInt32LE(0x34),
    current_tcb: tcb(0x38),
    plat_info: Number(report.readBigUInt64LE(0x40)),
    key_info: report.readUInt32LE(0x48),
    report_data: array(0x50, 64),
    measurement: array(0x90, 48),
    host_data: array(0xc0, 32),
    id_key_digest: array(0xe0, 48),
    author_key_digest: array(0x110, 48),
    report_id: array(0x140, 32),
    report_id_ma: array(0x160, 32),
    reported_tcb: tcb(0x180),
    cpuid_fam_id: version < 3 ? null : (report[0x188] ?? 0),
    cpuid_mod_id: version < 3 ? null : (report[0x189] ?? 0),
    cpuid_step: version < 3 ? null : (report[0x18a] ?? 0),
    chip_id: array(0x1a0, 64),
    committed_tcb: tcb(0x1e0),
    current: firmware(0x1e8),
    committed: firmware(0x1ec),
    launch_tcb: tcb(0x1f0),
    ...(version >= 5
      ? {
          launch_mit_vector: Number(report.readBigUInt64LE(0x1f8)),
          current_mit_vector: Number(report.readBigUInt64LE(0x200)),
        }
      : {}),
    signature: { r: array(snpSignedBytes, 72), s: array(snpSignedBytes + 72, 72) },
  };
}
