import type { Quote, TdReport } from '@sealpod/protocol/dcap';
import type { JsonObject } from '@sealpod/protocol/json';

/** Claims of a TD's quote as upstream has them: fields in hexadecimal, in the order of the wire. */
export function tdQuoteClaims({ header, descriptor }: Quote, report: TdReport): JsonObject {
  const { raw, reserved, vendorId, userData } = header;
  const hex = (from: number, to: number): string => raw.subarray(from, to).toString('hex');
  const { debug, septVeDisable, protectionKeys, keyLocker, perfmon } = report.attributes;
  return {
    quote: {
      header: {
        version: hex(0, 2),
        att_key_type: hex(2, 4),
        tee_type: hex(4, 8),
        reserved: reserved.toString('hex'),
        vendor_id: vendorId.toString('hex'),
        user_data: userData.toString('hex'),
      },
      ...(descriptor === undefined
        ? {}
        : { type: descriptor.subarray(0, 2).toString('hex'), size: descriptor.subarray(2).toString('hex') }),
      body: bodyClaims(report),
    },
    td_attributes: {
      debug,
      septve_disable: septVeDisable,
      protection_keys: protectionKeys,
      key_locker: keyLocker,
      perfmon,
    },
  };
}

function bodyClaims(report: TdReport): JsonObject {
  const { teeTcbSvn2, mrServiceTd } = report;
  const fields: Readonly<Record<string, Buffer | undefined>> = {
    tcb_svn: report.teeTcbSvn,
    mr_seam: report.mrSeam,
    mrsigner_seam: report.mrSignerSeam,
    seam_attributes: report.seamAttributes,
    td_attributes: report.tdAttributes,
    xfam: report.xfam,
    mr_td: report.mrTd,
    mr_config_id: report.mrConfigId,
    mr_owner: report.mrOwner,
    mr_owner_config: report.mrOwnerConfig,
    ...Object.fromEntries(report.rtmrs.map((value, index) => [`rtmr_${index}`, value])),
    report_data: report.reportData,
    tee_tcb_svn2: teeTcbSvn2,
    mr_servicetd: mrServiceTd,
  };
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, value.toString('hex')]])),
  );
}
