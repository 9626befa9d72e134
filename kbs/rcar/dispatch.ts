import { randomUUID } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  handleDeleteResource,
  handleGetReferenceValue,
  handleGetResourcePolicy,
  handlePostAttestationPolicy,
  handlePostReferenceValue,
  handlePostResource,
  handlePostResourcePolicy,
} from '../admin/upstream.ts';
import type { Parts } from '../parts.ts';
import type { Answer, Exchange } from '../server/exchange.ts';
import { handleAttest } from './attest.ts';
import { handleAuth } from './auth.ts';
import { asRefusal, Refusal, refusalAnswer, refusalTexts } from './refusal.ts';
import { handleGetResource } from './resource.ts';

type Handler = (parts: Parts, exchange: Exchange) => Promise<Answer>;

/** Methods that exist below `/kbs/v0`; others are answered by the server with 405 and this list. */
export const allowedMethods: readonly string[] = ['GET', 'POST', 'PUT', 'DELETE'];

/** `<METHOD> <first segment>` → handler. What follows the first segment is the handler's to judge. */
const handlers: ReadonlyMap<string, Handler> = new Map([
  ['POST auth', handleAuth],
  ['POST attest', handleAttest],
  ['POST resource-policy', handlePostResourcePolicy],
  ['GET resource-policy', handleGetResourcePolicy],
  ['POST attestation-policy', handlePostAttestationPolicy],
  ['POST reference-value', handlePostReferenceValue],
  ['GET reference-value', handleGetReferenceValue],
  ['GET resource', handleGetResource],
  ['POST resource', handlePostResource],
  ['DELETE resource', handleDeleteResource],
  ['PUT resource', handlePutResource],
]);

/** Upstream takes PUT as a guest's request and its plugin then refuses it; here it is refused at once, in the same words. */
async function handlePutResource(_parts: Parts, exchange: Exchange): Promise<Answer> {
  const isGuest = exchange.headers.cookie !== undefined || exchange.headers.authorization !== undefined;
  if (!isGuest) throw new Refusal('TOKEN_MISSING', refusalTexts.tokenMissing);
  throw new Refusal('UNSUPPORTED', refusalTexts.plugin);
}

/** Answers a request below `/kbs/v0`. Never throws: what fails is an answer in upstream's shape, and a line in the log. */
export async function dispatch(parts: Parts, exchange: Exchange): Promise<Answer> {
  const [name = ''] = exchange.segments;
  const handler = handlers.get(`${exchange.method} ${name}`);
  try {
    if (handler === undefined) {
      const detail = `Plugin ${name.slice(0, 256)} not found`;
      throw new Refusal('NOT_FOUND', { variant: 'PluginNotFound', detail, status: 404 });
    }
    return await handler(parts, exchange);
  } catch (thrown) {
    const route = handler === undefined ? 'unknown' : name;
    if (thrown instanceof SealpodError && thrown.code === 'REQUEST_TOO_LARGE' && !(thrown instanceof Refusal)) {
      return bodyAnswer(413, 'payload reached size limit', thrown.code, route);
    }
    if (thrown instanceof SealpodError && thrown.code === 'REQUEST_FORMAT' && !(thrown instanceof Refusal)) {
      return bodyAnswer(400, thrown.message, thrown.code, route);
    }
    const refusal = asRefusal(thrown, refusalTexts.broken);
    const correlationId = refusal.correlationId ?? randomUUID();
    log(parts, refusal, correlationId, route);
    return refusalAnswer(refusal, correlationId, route);
  }
}

/** What upstream's HTTP framework answers by itself is plain text and closes the connection. */
function bodyAnswer(status: number, text: string, code: 'REQUEST_TOO_LARGE' | 'REQUEST_FORMAT', route: string): Answer {
  const contentType = 'text/plain; charset=utf-8';
  return {
    status,
    correlationId: randomUUID(),
    contentType,
    body: text,
    headers: { connection: 'close' },
    code,
    route,
  };
}

/** Code and cause; not the cause of a policy's failure, which quotes the policy. */
function log(parts: Parts, refusal: Refusal, correlationId: string, route: string): void {
  const { code } = refusal;
  const quotes = code.startsWith('POLICY_');
  const cause = refusal.cause instanceof Error && !quotes ? refusal.cause.message : undefined;
  const entry = { correlationId, route, code, cause };
  if ((refusal.text.status ?? 401) >= 500) parts.log.error({ ...entry, err: refusal.cause }, 'failed');
  else parts.log.info(entry, 'refused');
}
