import { createHash } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import { isCurrent } from '../../endorsements/revocation-list.ts';
import { isValidAt } from '../../endorsements/verified-chain.ts';
import type { DcapEndorsements } from './endorse.ts';
import type { TcbJudgement } from './judge.ts';

const sgxTypes = ['Standard', 'Scalable', 'Scalable with Integrity'] as const;

/**
 * Claims that Intel's library supplies beside the quote's own, with upstream's names: dates, numbers, platform and status.
 * Where collateral is missing there is nothing to tell but what the platform's certificate says, and the verdict says why.
 */
export function supplementalClaims(
  { pck, tcbInfo, qeIdentity, pckRevocationList, rootRevocationList }: DcapEndorsements,
  { launch, current }: TcbJudgement,
  root: EnrolledRoot,
  now: Date,
): JsonObject {
  const [info, identity] = [tcbInfo.value, qeIdentity.value];
  const [platforms, roots] = [pckRevocationList.value, rootRevocationList.value];
  // Upstream reads the certificate's octets as a little-endian number, and writes it with the most significant digit first.
  const instanceId = pck.platformInstanceId && Buffer.from(pck.platformInstanceId).reverse();
  const instance = instanceId === undefined ? {} : { platform_instance_id: instanceId.toString('hex') };
  if (info === undefined || identity === undefined || platforms === undefined || roots === undefined) return instance;
  if (launch === undefined) return instance;
  const lists = [platforms.document, roots];
  const documents = [info.document, identity.document];
  const chains = [info.chain, identity.chain, platforms.chain];
  // Of every certificate, not of chains: a chain begins with the latest of its certificates, Intel's claim with the earliest.
  const certificates = [pck.certificate, ...chains.flatMap(({ path }) => path)].map(({ x509 }) => x509);
  const issued = [
    ...lists.map(({ thisUpdate }) => thisUpdate),
    ...documents.map(({ issueDate }) => issueDate),
    ...certificates.map(({ validFromDate }) => validFromDate),
  ];
  const expires = [
    ...lists.flatMap(({ nextUpdate }) => nextUpdate ?? []),
    ...documents.map(({ nextUpdate }) => nextUpdate),
    ...certificates.map(({ validToDate }) => validToDate),
  ];
  const isFresh =
    lists.every((list) => isCurrent(list, now)) &&
    documents.every(({ nextUpdate }) => now <= nextUpdate) &&
    chains.every((chain) => isValidAt(chain, now));
  const [anchor] = root.anchors;
  const { configuration } = pck;
  return {
    tcb_status: launch.status,
    collateral_expiration_status: isFresh ? '0' : '1',
    advisory_ids: [...launch.advisories],
    earliest_issue_date: dateText(Math.min(...issued.map(Number))),
    latest_issue_date: dateText(Math.max(...issued.map(Number))),
    earliest_expiration_date: dateText(Math.min(...expires.map(Number))),
    tcb_date: dateText(Number(launch.date)),
    tcb_eval_num: Math.min(...documents.map(({ evaluationDataNumber }) => evaluationDataNumber)),
    pck_crl_num: Number(platforms.document.number ?? 0n),
    root_ca_crl_num: Number(roots.number ?? 0n),
    platform_provider_id: pck.ppid.toString('hex'),
    sgx_type: sgxTypes[pck.sgxType] ?? `Unknown (${pck.sgxType})`,
    ...(pck.sgxType === 0 || configuration === undefined
      ? {}
      : {
          is_dynamic_platform: configuration.dynamicPlatform,
          is_cached_keys: configuration.cachedKeys,
          is_smt_enabled: configuration.smtEnabled,
        }),
    ...instance,
    root_key_id: anchor === undefined ? '' : keyId(anchor.x509.publicKey.export({ format: 'der', type: 'spki' })),
    ...(current === undefined
      ? {}
      : {
          tcb_date_current: dateText(Number(current.date)),
          tcb_status_current: current.status,
          advisory_ids_current: [...current.advisories],
        }),
  };
}

/** SHA-384 of the uncompressed point with its prefix 04: the last 65 bytes of the key. */
function keyId(publicKey: Buffer): string {
  return createHash('sha384').update(publicKey.subarray(-65)).digest('hex');
}

function dateText(time: number): string {
  return new Date(time).toISOString().replace(/\.000Z$/, 'Z');
}
