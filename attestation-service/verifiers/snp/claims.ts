import type { JsonObject } from '@sealpod/protocol/json';
import type { SnpReport, SnpTcb } from '@sealpod/protocol/snp';
import type { SnpEndorsements } from './endorse.ts';

/** The claims of a verified report: upstream's, and what upstream does not tell under `sealpod`. */
export function snpClaims(report: SnpReport, endorsements: SnpEndorsements): JsonObject {
  const { policy, platform, reportedTcb } = report;
  return {
    policy_abi_major: policy.abiMajor,
    policy_abi_minor: policy.abiMinor,
    policy_smt_allowed: policy.smtAllowed,
    policy_migrate_ma: policy.migrationAgentAllowed,
    policy_debug_allowed: policy.debugAllowed,
    policy_single_socket: policy.singleSocket,
    reported_tcb_bootloader: reportedTcb.bootloader,
    reported_tcb_tee: reportedTcb.tee,
    reported_tcb_snp: reportedTcb.snp,
    reported_tcb_microcode: reportedTcb.microcode,
    platform_tsme_enabled: platform.tsmeEnabled,
    platform_smt_enabled: platform.smtEnabled,
    measurement: report.measurement.toString('hex'),
    chip_id: report.chipId.toString('hex'),
    report_data: report.reportData.toString('hex'),
    init_data: report.hostData.toString('hex'),
    sealpod: snpDetails(report, endorsements),
  };
}

/** What a report says and upstream's claims leave out. */
export function snpDetails(report: SnpReport, { generation, revocationList }: SnpEndorsements): JsonObject {
  const { policy, platform, current, committed } = report;
  return {
    report_version: report.version,
    generation: generation ?? null,
    signing_key: report.signingKey,
    vmpl: report.vmpl,
    guest_svn: report.guestSvn,
    family_id: report.familyId.toString('hex'),
    image_id: report.imageId.toString('hex'),
    id_key_digest: report.idKeyDigest.toString('hex'),
    author_key_digest: report.authorKeyEnabled ? report.authorKeyDigest.toString('hex') : null,
    report_id: report.reportId.toString('hex'),
    reported_tcb: tcbClaims(report.reportedTcb),
    current_tcb: tcbClaims(report.currentTcb),
    committed_tcb: tcbClaims(report.committedTcb),
    launch_tcb: tcbClaims(report.launchTcb),
    current_version: `${current.major}.${current.minor}.${current.build}`,
    committed_version: `${committed.major}.${committed.minor}.${committed.build}`,
    policy_cxl_allowed: policy.cxlAllowed,
    policy_mem_aes_256_xts: policy.memAes256Xts,
    policy_rapl_disabled: policy.raplDisabled,
    policy_ciphertext_hiding: policy.ciphertextHiding,
    policy_page_swap_disabled: policy.pageSwapDisabled,
    platform_ecc_enabled: platform.eccEnabled,
    platform_rapl_disabled: platform.raplDisabled,
    platform_ciphertext_hiding: platform.ciphertextHiding,
    platform_alias_check_complete: platform.aliasCheckComplete,
    revocation_list: revocationList === undefined ? 'none' : revocationList.thisUpdate.toISOString(),
  };
}

function tcbClaims(tcb: SnpTcb): JsonObject {
  return { ...tcb };
}
