import { SealpodError } from '@sealpod/protocol/errors';
import { encryptResponse } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { decide } from '../audit/log.ts';
import type { Decision } from '../audit/record.ts';
import type { Parts } from '../parts.ts';
import { askPolicy } from '../policies/decide.ts';
import { defaultPolicyId } from '../policies/default-policy.ts';
import { findPolicy, type ResourcePolicy } from '../policies/store.ts';
import { findResource, type ResourceMetadata, readResource, resourcePathOf } from '../resources/store.ts';
import type { Answer, Exchange } from '../server/exchange.ts';
import { asRefusal, Refusal, type RefusalText, refusalTexts } from './refusal.ts';
import { findSession, sessionIdOf } from './sessions.ts';
import { submodStatuses } from './submods.ts';
import type { VerifiedToken } from './token-verifier.ts';

/** A write that comes between decision and release makes the decision anew; an endless stream of writes ends it. */
const mostTries = 4;

type PresentedToken = VerifiedToken & { readonly correlationId: string };

/** The token of a request: of its attested session, or else the bearer. Upstream's order. */
async function presentedToken(parts: Parts, exchange: Exchange): Promise<PresentedToken> {
  const { cookie, authorization } = exchange.headers;
  const found = cookie === undefined ? undefined : await findSession(parts.storage, sessionIdOf(cookie));
  const token = found?.session.token ?? /^Bearer (.+)$/.exec(authorization ?? '')?.[1];
  if (token === undefined) throw new Refusal('TOKEN_MISSING', refusalTexts.tokenMissing);
  try {
    const verified = await parts.tokens.verify(token);
    // Tokens of an attestation service that is not ours name no session.
    const correlationId = verified.correlationId ?? found?.session.correlationId ?? verified.hash;
    return { ...verified, correlationId };
  } catch (thrown) {
    throw asRefusal(thrown, refusalTexts.token, found?.session.correlationId);
  }
}

interface Judgement {
  readonly resource: ResourceMetadata | undefined;
  readonly policyId: string;
  readonly policy: ResourcePolicy | undefined;
  readonly verdict: Verdict;
}

async function judge(parts: Parts, exchange: Exchange, token: VerifiedToken, path: string): Promise<Judgement> {
  const resource = await findResource(parts.storage, path);
  const policyId = resource?.policy ?? defaultPolicyId;
  const policy = await findPolicy(parts.storage, policyId);
  const data = { plugin: 'resource', 'resource-path': path.split('/'), query: exchange.query };
  const verdict = await askPolicy(parts.rego, policyId, policy, { input: token.payload, data });
  parts.metrics.policyEvaluated(
    verdict.code === 'OK' ? 'allowed' : verdict.code === 'POLICY_DENY' ? 'denied' : 'error',
  );
  return { resource, policyId, policy, verdict };
}

/** Whether nothing that the judgement rests on was changed since. */
async function stillHolds(
  operations: Parameters<typeof findResource>[0],
  judged: Judgement,
  path: string,
): Promise<boolean> {
  const resource = await findResource(operations, path);
  if (resource?.version !== judged.resource?.version || resource?.policy !== judged.resource?.policy) return false;
  return (await findPolicy(operations, judged.policyId))?.sha256 === judged.policy?.sha256;
}

function refusalTextOf(judged: Judgement): RefusalText {
  switch (judged.verdict.code) {
    case 'OK':
      return refusalTexts.notFound;
    case 'POLICY_DENY':
    case 'POLICY_UNSET':
      return refusalTexts.deny;
    default:
      return refusalTexts.policy;
  }
}

/** The decision for the record, and what goes out if it holds. */
async function prepare(parts: Parts, exchange: Exchange, token: PresentedToken, path: string, judged: Judgement) {
  const { resource, verdict, policyId, policy } = judged;
  const { correlationId } = token;
  let body: string | undefined;
  let refusal: Refusal | undefined;
  if (verdict.code !== 'OK') refusal = new Refusal(verdict.code, refusalTextOf(judged), { correlationId });
  else if (resource === undefined) refusal = new Refusal('RES_NOT_FOUND', refusalTexts.notFound, { correlationId });
  else {
    const plaintext = await readResource(parts.storage, resource);
    try {
      body = JSON.stringify(encryptResponse(token.teePubKey, plaintext));
    } catch (cause) {
      const code = cause instanceof SealpodError ? cause.code : 'INTERNAL';
      refusal = new Refusal(code, refusalTexts.jwe, { cause, correlationId });
    }
  }
  const decision: Decision = {
    correlationId,
    time: new Date(parts.now()).toISOString(),
    kind: 'resource',
    outcome: refusal?.code ?? 'OK',
    subject: { submods: submodStatuses(token.claims), remoteAddress: exchange.remoteAddress },
    verdict,
    ...(policy === undefined ? {} : { policy: { id: policyId, sha256: policy.sha256 } }),
    resource: resource === undefined ? { path } : { path, version: resource.version },
  };
  return { decision, body, refusal, correlationId };
}

/**
 * `GET /kbs/v0/resource/{repository}/{type}/{tag}`: the secret, encrypted to the key that the evidence was bound to, if
 * the resource's policy allows it. The record of the release is on disk before the first byte is sent.
 */
export async function handleGetResource(parts: Parts, exchange: Exchange): Promise<Answer> {
  const token = await presentedToken(parts, exchange);
  const { correlationId } = token;
  try {
    const path = resourcePathOf(exchange.segments.slice(1));
    for (let tries = 0; tries < mostTries; tries += 1) {
      const judged = await judge(parts, exchange, token, path);
      const prepared = await prepare(parts, exchange, token, path, judged).catch((thrown: unknown) => {
        // Deleted between judgement and reading: judged again.
        if (thrown instanceof SealpodError && thrown.code === 'STORAGE' && tries + 1 < mostTries) return undefined;
        throw thrown;
      });
      if (prepared === undefined) continue;
      const isCurrent = await recordIfCurrent(parts, judged, path, prepared.decision);
      if (!isCurrent) continue;
      if (prepared.refusal !== undefined) throw prepared.refusal;
      parts.metrics.resource('read');
      const body = prepared.body ?? '';
      return { status: 200, correlationId, contentType: 'application/json', body, route: 'resource' };
    }
    throw new SealpodError('STORAGE_CONFLICT', 'the resource changes faster than it can be released');
  } catch (thrown) {
    throw asRefusal(thrown, refusalTexts.plugin, correlationId);
  }
}

class Superseded extends Error {}

/** Records a decision in the transaction that finds its grounds unchanged. False, and nothing recorded, where they changed. */
async function recordIfCurrent(parts: Parts, judged: Judgement, path: string, decision: Decision): Promise<boolean> {
  try {
    await decide(parts.storage, async (transaction) => {
      if (!(await stillHolds(transaction, judged, path))) throw new Superseded();
      return { decision, result: undefined };
    });
    return true;
  } catch (thrown) {
    if (thrown instanceof Superseded) return false;
    throw thrown;
  }
}
