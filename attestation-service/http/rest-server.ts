import { randomUUID } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import express, { type ErrorRequestHandler, type Request, type RequestHandler, type Response } from 'express';
import { checkExposure, defaultPolicy, type FrontOptions, isAdministrator, requireAdministrator } from '../access.ts';
import type { AttestationService, TokenKeyAdministration } from '../service.ts';
import { crossOrigin } from './cross-origin.ts';
import { discoveryDocument, discoveryPath, keySetPath, keySetText } from './discovery.ts';
import { type HttpFront, listenHttp, splitAddress } from './listen.ts';
import { failureAnswer } from './rest-error.ts';
import { decodePolicy, readAttestation, readChallenge, readJson, readPolicy } from './rest-requests.ts';

export interface RestServerOptions extends FrontOptions {
  /** Origins whose pages may ask; none by default. */
  readonly allowedOrigins?: readonly string[];
  /** Bytes of a request body; upstream's fixed 2 MiB by default, which evidence of eight GPUs exceeds. */
  readonly maxBodyBytes?: number;
  /** What tokens say as `iss`, for the discovery document. */
  readonly issuer: string;
  /** The URL that relying parties know this front by; default: as the request names it. */
  readonly publicUrl?: string;
}

const upstreamBodyBytes = 2 * 1024 * 1024;
const correlationId = /^[\w.-]{1,64}$/;

/**
 * Serves upstream's RESTful-AS: `POST /attestation`, `GET|POST /policy`, `POST /challenge`, `GET /.well-known/jwks.json`,
 * `GET /healthz`; beyond it `GET /.well-known/openid-configuration`, `GET /token-keys` and `POST /token-keys/rotate`. Every TEE of the service may be asked about.
 *
 * Evaluation by the default policy and challenges are open to whoever reaches the socket, as upstream. Other policies, and
 * reading and setting policies, and token keys, are for administrators only: see {@link FrontOptions}.
 *
 * @throws SealpodError USAGE for a configuration that would be open to the network, NETWORK where it cannot listen
 */
export async function serveRest(service: AttestationService, options: RestServerOptions): Promise<HttpFront> {
  checkExposure(options);
  const { address, tls } = options;
  const server = { what: 'the REST front', maxHeaderSize: 128 * 1024, requestTimeout: 60_000 };
  return listenHttp(
    { ...server, ...splitAddress(address), ...(tls === undefined ? {} : { tls }) },
    restApplication(service, options),
  );
}

/** The routes, for a server that listens. */
function restApplication(service: AttestationService, options: RestServerOptions): express.Express {
  const application = express();
  application.disable('x-powered-by');
  application.disable('etag');
  application.enable('strict routing');
  application.enable('case sensitive routing');
  application.use((request, response, next) => {
    if (!crossOrigin(request, response, options.allowedOrigins ?? [])) next();
  });
  const limit = options.maxBodyBytes ?? upstreamBodyBytes;
  const json: RequestHandler[] = [requireJson, express.raw({ type: () => true, limit, inflate: false })];
  const authorization = (request: Request): unknown => request.headers.authorization;
  const handle =
    (step: string, work: (request: Request, response: Response) => Promise<void>): RequestHandler =>
    (request, response) => {
      work(request, response).catch((thrown: unknown) => {
        const failure = failureAnswer(thrown, step, isAdministrator(authorization(request), options));
        response.setHeader('sealpod-reason-code', failure.code);
        if (failure.status === 401) response.setHeader('www-authenticate', 'Bearer');
        answer(
          response,
          failure.status,
          failure.body,
          failure.status === 400 ? 'text/plain; charset=utf-8' : undefined,
        );
      });
    };

  route(application, '/attestation', {
    POST: [
      ...json,
      handle('attestation report evaluate', async (request, response) => {
        const { evidences, policyIds } = readAttestation(readJson(bodyOf(request)));
        // The token is affirming by the policy that appraised it: to choose another is to decide what is affirming.
        if (policyIds.some((id) => id !== defaultPolicy)) requireAdministrator(authorization(request), options);
        const sent = request.headers['x-correlation-id'];
        const id = typeof sent === 'string' && correlationId.test(sent) ? sent : randomUUID();
        response.setHeader('x-correlation-id', id);
        const { token } = await service.evaluate({ evidences, policyIds, correlationId: id });
        answer(response, 200, token);
      }),
    ],
  });
  route(application, '/policy', {
    POST: [
      ...json,
      handle('set policy', async (request, response) => {
        requireAdministrator(authorization(request), options);
        const { id, policy } = readPolicy(readJson(bodyOf(request)));
        await service.setPolicy(id, decodePolicy(policy));
        answer(response, 200, '');
      }),
    ],
    GET: [
      handle('get policies', async (request, response) => {
        requireAdministrator(authorization(request), options);
        const policies = await service.listPolicies();
        answer(response, 200, JSON.stringify(policies.map(({ id }) => ({ 'policy-id': id }))));
      }),
    ],
  });
  route(application, '/challenge', {
    POST: [
      ...json,
      handle('generate challenge', async (request, response) => {
        answer(response, 200, await service.challenge({ ...readChallenge(readJson(bodyOf(request))) }));
      }),
    ],
  });
  // Beyond upstream.
  const tokenKeys = (request: Request): TokenKeyAdministration => {
    requireAdministrator(authorization(request), options);
    if (service.tokenKeys === undefined) throw new SealpodError('UNSUPPORTED', 'the token keys are kept elsewhere');
    return service.tokenKeys;
  };
  route(application, '/token-keys', {
    GET: [
      handle('list token keys', async (request, response) => {
        const keys = await tokenKeys(request).list();
        answer(response, 200, JSON.stringify({ 'token-keys': keys }), 'application/json');
      }),
    ],
  });
  route(application, '/token-keys/rotate', {
    POST: [
      handle('rotate token key', async (request, response) => {
        const { rotated, keys } = await tokenKeys(request).rotate();
        answer(response, 200, JSON.stringify({ rotated, 'token-keys': keys }), 'application/json');
      }),
    ],
  });
  route(application, keySetPath, {
    GET: [
      async (_request, response) => {
        const keys = await keySetText(service);
        if (keys === undefined) answer(response, 503, '');
        else published(response, keys);
      },
    ],
  });
  route(application, discoveryPath, {
    GET: [
      (request, response) => {
        const origin =
          options.publicUrl?.replace(/\/+$/, '') ??
          `${options.tls === undefined ? 'http' : 'https'}://${request.headers.host ?? options.address}`;
        published(response, JSON.stringify(discoveryDocument(origin, options.issuer)));
      },
    ],
  });
  application.get('/healthz', (request, response) => answer(response, request.method === 'GET' ? 200 : 404, ''));
  application.use((_request, response) => answer(response, 404, ''));
  application.use(bodyFailure);
  return application;
}

/** One path with its methods; any other is 405 and names them, as HEAD is upstream. */
function route(application: express.Express, path: string, methods: Readonly<Record<string, RequestHandler[]>>): void {
  const allowed = Object.keys(methods);
  application.all(path, (request, response, next) => {
    if (allowed.includes(request.method)) return next();
    response.setHeader('allow', allowed.join(', '));
    answer(response, 405, '');
  });
  for (const [method, handlers] of Object.entries(methods))
    application[method === 'GET' ? 'get' : 'post'](path, ...handlers);
}

const requireJson: RequestHandler = (request, response, next) => {
  if (/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(request.headers['content-type'] ?? '')) next();
  else answer(response, 400, 'Content type error', 'text/plain; charset=utf-8');
};

/** Without a body the middleware leaves an object in its place. */
function bodyOf(request: Request): Buffer {
  const body: unknown = request.body;
  return Buffer.isBuffer(body) ? body : Buffer.alloc(0);
}

/** What the reading of a body failed with. */
const bodyFailure: ErrorRequestHandler = (error: unknown, _request, response, next) => {
  if (response.headersSent) return next(error);
  const { type, length, limit } = (error ?? {}) as { type?: unknown; length?: unknown; limit?: unknown };
  if (type === 'entity.too.large') {
    const size = typeof length === 'number' ? ` (${length} bytes)` : '';
    response.setHeader('sealpod-reason-code', 'REQUEST_TOO_LARGE');
    return answer(
      response,
      413,
      `JSON payload${size} is larger than allowed (limit: ${limit} bytes).`,
      'text/plain; charset=utf-8',
    );
  }
  if (type === 'encoding.unsupported') return answer(response, 415, 'content encodings are not accepted');
  if (typeof type === 'string') return answer(response, 400, 'the request body broke off', 'text/plain; charset=utf-8');
  answer(response, 500, 'An internal error occured: \n0: INTERNAL');
};

function published(response: Response, text: string): void {
  response.setHeader('cache-control', 'max-age=60');
  answer(response, 200, text, 'application/json');
}

/** A body that was not read to its end cannot be followed by another request on the connection. */
function answer(response: Response, status: number, body: string, contentType?: string): void {
  const bytes = Buffer.from(body);
  response.writeHead(status, {
    'content-length': String(bytes.length),
    ...(contentType === undefined ? {} : { 'content-type': contentType }),
    ...(response.req.complete ? {} : { connection: 'close' }),
  });
  response.end(bytes);
}
