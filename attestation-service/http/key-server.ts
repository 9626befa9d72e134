import { createServer as createPlain, type RequestListener } from 'node:http';
import { createServer as createSecure } from 'node:https';
import type { AddressInfo } from 'node:net';
import { SealpodError } from '@sealpod/protocol/errors';
import type { AttestationService } from '../service.ts';

export interface KeyServerOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** PEM. */
  readonly tls?: { readonly certificate: string; readonly key: string };
}

export interface KeyServer {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Publishes the keys that verify tokens: `GET /.well-known/jwks.json`, and `GET /healthz`. Upstream serves them on its
 * gRPC port over HTTP/1; the gRPC library here speaks HTTP/2 only, so they have a port of their own.
 *
 * @throws SealpodError NETWORK where it cannot listen
 */
export async function serveKeys(
  service: AttestationService,
  { host, port, tls }: KeyServerOptions,
): Promise<KeyServer> {
  const answer: RequestListener = (request, response) => {
    const respond = (status: number, body: string): void => {
      response
        .writeHead(status, { 'content-type': 'application/json', 'cache-control': 'max-age=60' })
        .end(request.method === 'HEAD' ? '' : body);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') respond(405, '{}');
    else if (request.url === '/healthz') respond(200, '{}');
    else if (request.url === '/.well-known/jwks.json') {
      service.jwks().then(
        (keys) => respond(200, JSON.stringify(keys)),
        () => respond(503, '{}'),
      );
    } else respond(404, '{}');
  };
  const limits = { requestTimeout: 10_000, headersTimeout: 5_000, maxHeaderSize: 8 * 1024 };
  const server =
    tls === undefined
      ? createPlain(limits, answer)
      : createSecure({ ...limits, key: tls.key, cert: tls.certificate, minVersion: 'TLSv1.2' }, answer);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new SealpodError('NETWORK', 'the key server cannot listen', { actual: `${host}:${port}`, cause })),
    );
    server.listen(port, host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
