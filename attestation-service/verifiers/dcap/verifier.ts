import type { Quote } from '@sealpod/protocol/dcap';
import type { JsonObject } from '@sealpod/protocol/json';
import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from '../check.ts';
import { supplementalClaims } from './claims.ts';
import { type DcapRules, endorseQuote } from './endorse.ts';
import { judgeTcb } from './judge.ts';
import { verifyQuote } from './verify.ts';

/** What was found out of a quote. */
export interface QuoteVerification {
  readonly verdicts: readonly Verdict[];
  /** Of platform and collateral. */
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
