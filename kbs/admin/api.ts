import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { SealpodError } from '@sealpod/protocol/errors';
import express, { type Express, type Request, type Response } from 'express';
import type { Parts } from '../parts.ts';
import { readBody } from '../server/body.ts';
import type { Answer } from '../server/exchange.ts';
import { writeAnswer } from '../server/listener.ts';
import { failureAnswer } from './answers.ts';
import { changeCandidate, getCandidate, getCandidates, learnCandidate } from './candidates.ts';
import { getDecisions, getLatestDecisions, getStatus } from './insight.ts';
import {
  checkPolicyText,
  deletePolicyById,
  getPolicies,
  getPolicyById,
  putPolicyById,
  testPolicy,
} from './policies.ts';
import { deleteReferenceValue, getReferenceValue, getReferenceValues, putReferenceValue } from './reference-values.ts';
import type { AdminHandler } from './request.ts';
import { deleteResourceByName, getResourceByName, getResources, putResourceByName } from './resources.ts';
import type { AdminAction } from './roles.ts';
import { getTokenKeys, rotateTokenKey } from './token-keys.ts';

type Method = 'get' | 'put' | 'post' | 'delete';

const routes: readonly (readonly [Method, path: string, AdminAction, AdminHandler])[] = [
  ['get', '/admin/v1/resources', 'resource:list', getResources],
  ['get', '/admin/v1/resources/:repository/:type/:tag', 'resource:list', getResourceByName],
  ['put', '/admin/v1/resources/:repository/:type/:tag', 'resource:write', putResourceByName],
  ['delete', '/admin/v1/resources/:repository/:type/:tag', 'resource:write', deleteResourceByName],
  ['get', '/admin/v1/policies', 'policy:read', getPolicies],
  ['post', '/admin/v1/policies/test', 'policy:test', testPolicy],
  ['post', '/admin/v1/policies/check', 'policy:test', checkPolicyText],
  ['get', '/admin/v1/policies/:kind/:id', 'policy:read', getPolicyById],
  ['put', '/admin/v1/policies/:kind/:id', 'policy:write', putPolicyById],
  ['delete', '/admin/v1/policies/:kind/:id', 'policy:write', deletePolicyById],
  ['get', '/admin/v1/reference-values', 'reference-value:read', getReferenceValues],
  ['get', '/admin/v1/reference-values/:id', 'reference-value:read', getReferenceValue],
  ['put', '/admin/v1/reference-values/:id', 'reference-value:write', putReferenceValue],
  ['delete', '/admin/v1/reference-values/:id', 'reference-value:write', deleteReferenceValue],
  ['get', '/admin/v1/reference-value-candidates', 'reference-value:read', getCandidates],
  ['post', '/admin/v1/reference-value-candidates', 'reference-value:write', learnCandidate],
  ['get', '/admin/v1/reference-value-candidates/:id', 'reference-value:read', getCandidate],
  ['post', '/admin/v1/reference-value-candidates/:id/:step', 'reference-value:approve', changeCandidate],
  ['get', '/admin/v1/token-keys', 'token-key:read', getTokenKeys],
  ['post', '/admin/v1/token-keys/rotate', 'token-key:rotate', rotateTokenKey],
  ['get', '/admin/v1/decisions', 'decision:read', getLatestDecisions],
  ['get', '/admin/v1/decisions/:correlationId', 'decision:read', getDecisions],
  ['get', '/admin/v1/status', 'status:read', getStatus],
];

function flatQuery(request: Request): Record<string, string> {
  const flat: Record<string, string> = Object.create(null);
  for (const [name, value] of new URL(request.originalUrl, 'http://localhost').searchParams) flat[name] = value;
  return flat;
}

async function serve(parts: Parts, action: AdminAction, handler: AdminHandler, request: Request, response: Response) {
  const started = performance.now();
  const correlationId = randomUUID();
  let answer: Answer;
  try {
    const path = request.path;
    const administrator = await parts.authenticator.authorize(request.headers.authorization, action, path);
    const parameters = request.params as Readonly<Record<string, string>>;
    const remoteAddress = request.socket.remoteAddress ?? '';
    const body = (limit: number) => readBody(request, limit);
    const query = flatQuery(request);
    answer = await handler({ parts, administrator, correlationId, remoteAddress, parameters, query, body });
  } catch (thrown) {
    answer = failureAnswer(thrown, correlationId);
    if (answer.status >= 500) parts.log.error({ correlationId, code: answer.code, err: thrown }, 'failed');
    // Its message may quote what was sent; it goes to the administrator alone.
    else parts.log.info({ correlationId, code: answer.code }, 'refused');
  }
  writeAnswer(request, response, answer);
  if (!(request as IncomingMessage).complete) request.resume();
  parts.metrics.answered('admin', answer.status, (performance.now() - started) / 1000, answer.code);
}

/** What is not RCAR: the administration, the published keys, health and metrics. */
export function createApplication(parts: Parts): Express {
  const app = express();
  app.disable('x-powered-by').disable('etag').enable('case sensitive routing').enable('strict routing');
  app.set('query parser', false);
  for (const [method, path, action, handler] of routes) {
    app[method](path, (request, response) => serve(parts, action, handler, request, response));
  }
  // Express would answer HEAD by the GET handlers; upstream does not, and nobody needs it.
  app.head('/metrics', (_request, response) => void response.status(405).set('allow', 'GET, POST').end());
  app.head('/{*path}', (_request, response) => void response.status(404).end());
  app.get('/.well-known/jwks.json', async (_request, response) => {
    response.status(200).json(await parts.attestation.jwks());
  });
  app.get('/healthz', async (_request, response) => {
    await parts.storage.get('kbs/health', 'probe');
    response.status(200).end();
  });
  app.get('/metrics', async (_request, response) => {
    const text = await parts.metrics.text();
    response.status(200).type(parts.metrics.contentType).send(text);
  });
  app.post('/metrics', (_request, response) => void response.status(405).end());
  app.all('/metrics', (_request, response) => void response.status(405).set('allow', 'GET, POST').end());
  app.use((_request: Request, response: Response) => void response.status(404).end());
  app.use((thrown: unknown, _request: Request, response: Response, _next: unknown) => {
    const malformed =
      thrown instanceof URIError || (thrown instanceof Error && 'status' in thrown && thrown.status === 400);
    if (!malformed) parts.log.error({ err: thrown }, 'failed');
    if (response.headersSent) response.destroy();
    else
      response.status(malformed ? 400 : thrown instanceof SealpodError && thrown.code === 'STORAGE' ? 503 : 500).end();
  });
  return app;
}
