import { randomUUID } from 'node:crypto';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Parts } from '../parts.ts';
import { allowedMethods, dispatch } from '../rcar/dispatch.ts';
import { readBody } from './body.ts';
import type { Answer, Exchange } from './exchange.ts';
import type { RateLimiter } from './rate-limit.ts';
import { parseTarget, splitTarget } from './target.ts';
import type { TlsMaterial } from './tls.ts';

const prefix = '/kbs/v0/';
/** Upstream's limits: 128 KiB of request head, 96 headers. */
const mostHeadBytes = 128 * 1024;
const mostHeaders = 96;

/** Answers of the server itself, before any handler: no body, connection closed where the client is at fault. */
function endEmpty(response: ServerResponse, status: number, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-length': '0', 'x-correlation-id': randomUUID(), ...headers }).end();
}

/** Writes an answer. A request whose body was not read to its end cannot be followed by another on the connection. */
export function writeAnswer(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  const { status, correlationId, contentType, body = '', headers } = answer;
  const bytes = typeof body === 'string' ? Buffer.from(body, 'utf8') : body;
  response.writeHead(status, {
    ...(contentType === undefined ? {} : { 'content-type': contentType }),
    'content-length': String(bytes.length),
    'x-correlation-id': correlationId,
    'cache-control': 'no-store',
    ...(request.complete ? {} : { connection: 'close' }),
    ...headers,
  });
  response.end(bytes);
}

async function answerKbs(
  parts: Parts,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  query: string,
) {
  const started = performance.now();
  const method = request.method ?? '';
  if (!allowedMethods.includes(method)) {
    endEmpty(response, 405, { allow: allowedMethods.join(', ') });
    return;
  }
  const target = parseTarget(path.slice(prefix.length), query);
  const exchange: Exchange = {
    method,
    ...target,
    headers: request.headers,
    remoteAddress: request.socket.remoteAddress ?? '',
    body: (limit) => readBody(request, limit),
  };
  const answer = await dispatch(parts, exchange);
  writeAnswer(request, response, answer);
  // A body that nobody wanted must not be taken for the next request.
  if (!request.complete) request.resume();
  parts.metrics.answered(answer.route, answer.status, (performance.now() - started) / 1000, answer.code);
}

/** Routes a request: limits first, then RCAR and upstream's administration directly, everything else through `others`. */
function listenerOf(parts: Parts, limiter: RateLimiter, others: RequestListener): RequestListener {
  return (request, response) => {
    if (request.rawHeaders.length > 2 * mostHeaders) {
      endEmpty(response, 431, { connection: 'close' });
      return;
    }
    if (!limiter.take(request.socket.remoteAddress ?? '')) {
      parts.metrics.answered('rate-limit', 429, 0, 'RATE_LIMIT');
      const body = JSON.stringify({
        type: 'urn:sealpod:error:RATE_LIMIT',
        detail: 'too many requests',
        code: 'RATE_LIMIT',
      });
      writeAnswer(request, response, {
        status: 429,
        correlationId: randomUUID(),
        contentType: 'application/json',
        body,
        headers: { 'retry-after': '1' },
        route: 'rate-limit',
      });
      return;
    }
    const target = splitTarget(request.url ?? '');
    if (target === undefined) {
      // `OPTIONS *` is the one target that is neither a path nor malformed.
      if (request.url === '*') endEmpty(response, 404);
      else endEmpty(response, 400, { connection: 'close' });
      return;
    }
    const { path, query } = target;
    if (path.startsWith(prefix)) {
      answerKbs(parts, request, response, path, query).catch((thrown: unknown) => {
        parts.log.error({ err: thrown }, 'an answer could not be written');
        response.destroy();
      });
      return;
    }
    // The application sees the path only, also where the target was in absolute form.
    request.url = query === '' ? path : `${path}?${query}`;
    response.setHeader('x-correlation-id', randomUUID());
    others(request, response);
  };
}

/** The HTTP server of a key broker, not listening yet. */
export function createListener(
  parts: Parts,
  limiter: RateLimiter,
  others: RequestListener,
  tls: TlsMaterial | undefined,
): Server {
  const { limits } = parts.config;
  const options = {
    maxHeaderSize: mostHeadBytes,
    headersTimeout: limits.headTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    // How often the two above are looked at.
    connectionsCheckingInterval: Math.max(50, Math.min(1000, limits.headTimeoutMs / 2)),
    keepAliveTimeout: 65_000,
    requireHostHeader: false,
    noDelay: true,
  };
  const listener = listenerOf(parts, limiter, others);
  const server =
    tls === undefined
      ? createHttpServer(options, listener)
      : createHttpsServer(
          {
            ...options,
            cert: tls.certificate,
            key: tls.privateKey,
            minVersion: 'TLSv1.2',
            handshakeTimeout: limits.headTimeoutMs,
          },
          listener,
        );
  server.maxConnections = limits.maxConnections;
  server.maxHeadersCount = mostHeaders + 1;
  return server;
}
