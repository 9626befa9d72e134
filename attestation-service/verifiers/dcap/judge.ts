import type { Quote } from '@sealpod/protocol/dcap';
import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from '../check.ts';
import type { DcapEndorsements } from './endorse.ts';
import {
  convergedStatus,
  enclaveLevel,
  platformLevel,
  relaunchStatus,
  type TcbResult,
  tdStatus,
} from './tcb-status.ts';

/** What the TCB of a quote is worth. */
export interface TcbJudgement {
  /** Absent where collateral is missing or refused, for which there are verdicts of their own. */
  readonly verdict?: Verdict;
  /** Undefined where nothing could be judged or no level is reached. */
  readonly launch?: TcbResult;
  /** Of the module that runs now; from TDX 1.5 on. */
  readonly current?: TcbResult;
}

/**
 * Judges the TCB as Intel's library does. A revoked one, and one that no level describes, is refused; every other status
 * is a claim, for policies to decide on.
 */
export function judgeTcb({ body, qe }: Quote, { pck, tcbInfo, qeIdentity }: DcapEndorsements): TcbJudgement {
  const info = tcbInfo.value?.document;
  const enclave = qeIdentity.value && enclaveLevel(qeIdentity.value.document, qe.report.isvSvn);
  if (info === undefined || enclave === undefined) return {};
  const evaluate = (svn?: Buffer): TcbResult | undefined => {
    if (svn !== undefined) return tdStatus(info, pck, enclave, svn);
    const platform = platformLevel(info, pck);
    return platform && convergedStatus(platform, enclave);
  };
  const launch = evaluate(body.tee === 'tdx' ? body.report.teeTcbSvn : undefined);
  const svn2 = body.tee === 'tdx' ? body.report.teeTcbSvn2 : undefined;
  const current = svn2 === undefined ? undefined : evaluate(svn2);
  const acceptable = launch !== undefined && launch.status !== 'Revoked';
  const verdict = check('TCB status', acceptable, 'EV_TCB_STATUS', {
    expected: 'a level of the TCB info that is not revoked',
    actual: launch?.status ?? `no level is reached by ${pck.components.join('.')}, PCE ${pck.pceSvn}`,
    source: 'TCB info',
  });
  return {
    verdict,
    ...(launch === undefined ? {} : { launch: { ...launch, status: relaunchStatus(launch, current) } }),
    ...(current === undefined ? {} : { current }),
  };
}
