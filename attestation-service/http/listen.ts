import { createServer as createPlain, type RequestListener, type Server } from 'node:http';
import { createServer as createSecure } from 'node:https';
import type { AddressInfo } from 'node:net';
import { SealpodError } from '@sealpod/protocol/errors';
import type { FrontTls } from '../access.ts';

/** A listening HTTP server. */
export interface HttpFront {
  readonly port: number;
  /** Ends at once what is idle, and after two seconds what is not. */
  close(): Promise<void>;
}

export interface HttpFrontOptions {
  /** For the message, e.g. `the key server`. */
  readonly what: string;
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly tls?: FrontTls;
  /** Bytes of a request's head. */
  readonly maxHeaderSize: number;
  /** Milliseconds for a whole request. */
  readonly requestTimeout: number;
}

const closeGraceMs = 2000;

/** Listens over HTTP or HTTPS. @throws SealpodError NETWORK where it cannot */
export async function listenHttp(options: HttpFrontOptions, answer: RequestListener): Promise<HttpFront> {
  const { what, host, port, tls, maxHeaderSize, requestTimeout } = options;
  const limits = { requestTimeout, headersTimeout: 5_000, maxHeaderSize, keepAliveTimeout: 65_000, noDelay: true };
  const server: Server =
    tls === undefined
      ? createPlain(limits, answer)
      : createSecure(
          {
            ...limits,
            key: tls.key,
            cert: tls.certificate,
            minVersion: 'TLSv1.2',
            ...(tls.clientAuthorities === undefined
              ? {}
              : { ca: tls.clientAuthorities, requestCert: true, rejectUnauthorized: true }),
          },
          answer,
        );
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new SealpodError('NETWORK', `${what} cannot listen`, { actual: `${host}:${port}`, cause })),
    );
    server.listen(port, host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        const force = setTimeout(() => server.closeAllConnections(), closeGraceMs);
        server.close(() => {
          clearTimeout(force);
          resolve();
        });
        server.closeIdleConnections();
      }),
  };
}

/** Host and port of `host:port`, `[v6]:port`. @throws SealpodError USAGE */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(address) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || port === undefined || Number(port) > 65_535)
    throw new SealpodError('USAGE', 'not an address to listen at', { expected: 'host:port', actual: address });
  return { host, port: Number(port) };
}
