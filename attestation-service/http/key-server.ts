import type { RequestListener } from 'node:http';
import type { FrontTls } from '../access.ts';
import type { AttestationService } from '../service.ts';
import { keySetPath, keySetText } from './discovery.ts';
import { type HttpFront, listenHttp } from './listen.ts';

export interface KeyServerOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** PEM. */
  readonly tls?: Pick<FrontTls, 'certificate' | 'key'>;
}

/**
 * Publishes the keys that verify tokens: `GET /.well-known/jwks.json`, and `GET /healthz`. Upstream serves them on its
 * gRPC port over HTTP/1; the gRPC library here speaks HTTP/2 only, so they have a port of their own.
 *
 * @throws SealpodError NETWORK where it cannot listen
 */
export function serveKeys(service: AttestationService, { host, port, tls }: KeyServerOptions): Promise<HttpFront> {
  const answer: RequestListener = (request, response) => {
    const respond = (status: number, body: string): void => {
      response
        .writeHead(status, { 'content-type': 'application/json', 'cache-control': 'max-age=60' })
        .end(request.method === 'HEAD' ? '' : body);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') respond(405, '{}');
    else if (request.url === '/healthz') respond(200, '{}');
    else if (request.url === keySetPath)
      void keySetText(service).then((keys) => (keys === undefined ? respond(503, '{}') : respond(200, keys)));
    else respond(404, '{}');
  };
  const server = { what: 'the key server', host, port, maxHeaderSize: 8 * 1024, requestTimeout: 10_000 };
  return listenHttp(
    { ...server, ...(tls === undefined ? {} : { tls: { certificate: tls.certificate, key: tls.key } }) },
    answer,
  );
}
