import type { Quote } from '@sealpod/protocol/dcap';
import type { JsonObject } from '@sealpod/protocol/json';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { Storage } from '@sealpod/storage';
import { collateralBundle } from '../../endorsements/intel/bundle.ts';
import { cachedSource } from '../../endorsements/intel/cached-source.ts';
import { IntelCollateral } from '../../endorsements/intel/collateral.ts';
import { provisioningService } from '../../endorsements/intel/provisioning-service.ts';
import { intelRoot } from '../../endorsements/intel/root.ts';
import { SeenBefore } from '../../endorsements/intel/seen-before.ts';
import type { IntelCollateralSource } from '../../endorsements/intel/source.ts';
import { check } from '../check.ts';
import { supplementalClaims } from './claims.ts';
import type { DcapConfig, IntelSourceConfig } from './config.ts';
import { type DcapRules, endorseQuote } from './endorse.ts';
import { judgeTcb } from './judge.ts';
import { verifyQuote } from './verify.ts';

export type { DcapRules } from './endorse.ts';

/** The rules of a configuration under Intel's root. What its services answer is kept in `storage`. */
export function dcapRules(config: DcapConfig, storage: Storage, now: () => Date): DcapRules {
  const { sources, acceptExpiredCollateral = false } = config;
  // Recoveries of the TCB are counted apart in the two channels.
  const channel = sources.map(({ update = 'early' }) => update).join('+');
  return {
    root: intelRoot(),
    collateral: new IntelCollateral({
      sources: sources.map((source) => sourceOf(source, storage, now)),
      root: intelRoot(),
      seen: new SeenBefore(storage),
      channel,
    }),
    acceptExpiredCollateral,
  };
}

function sourceOf(source: IntelSourceConfig, storage: Storage, now: () => Date): IntelCollateralSource {
  const { type, update = 'early' } = source;
  if (type === 'bundle') return collateralBundle(source.path, update);
  const { url } = source;
  const service = provisioningService({ kind: type, update, ...(url === undefined ? {} : { url }) });
  return cachedSource(service, `${type}/${url ?? ''}/${update}`, storage, now);
}

/** What was found out of a quote. */
export interface QuoteVerification {
  readonly verdicts: readonly Verdict[];
  /** Of the collateral; empty where it is missing. */
  readonly claims: JsonObject;
}

/** Verifies a quote and judges its TCB. Whatever is missing is a verdict. */
export async function verifyDcapQuote(quote: Quote, rules: DcapRules, now: Date): Promise<QuoteVerification> {
  const endorsements = await endorseQuote(quote, rules.collateral, now);
  if (endorsements instanceof Error) {
    const { code, message, detail } = endorsements;
    const { expected, actual = message } = detail;
    const finding = expected === undefined ? { actual } : { expected, actual };
    return { verdicts: [check('certificate of the platform', false, code, finding)], claims: {} };
  }
  const judgement = judgeTcb(quote, endorsements);
  return {
    verdicts: [
      ...verifyQuote(quote, endorsements, rules, now),
      ...(judgement.verdict === undefined ? [] : [judgement.verdict]),
    ],
    claims: supplementalClaims(endorsements, judgement, rules.root, now),
  };
}
