import * as http from 'node:http';
import * as https from 'node:https';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as tls from 'node:tls';
import { SealpodError } from '@sealpod/protocol/errors';

/** One HTTP request. */
export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH';
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | Readable;
  readonly signal?: AbortSignal | undefined;
}

/** The response; whoever gets it reads or destroys `body`. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: http.IncomingMessage;
  /** Where the response came from, after redirects. */
  readonly url: URL;
}

export interface TransportOptions {
  /** `host[:port]` that may be spoken to without TLS. Nothing else is. */
  readonly plainHttpHosts: ReadonlySet<string>;
  /** PEM certificates trusted besides the built-in ones. */
  readonly certificateAuthorities?: readonly string[];
  /** Milliseconds without a byte, on connecting, sending or receiving, after which a request fails. */
  readonly idleTimeoutMs: number;
}

const maxRedirects = 5;
/** Headers that say who asks; they never follow a redirect to another origin (CVE-2018-1000007 and its kind). */
const credentialHeaders: ReadonlySet<string> = new Set(['authorization', 'cookie']);

/** HTTP over node:http and node:https with keep-alive, redirects and an idle limit. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #http = new http.Agent({ keepAlive: true, maxSockets: 16 });
  readonly #https: https.Agent;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.#https = new https.Agent({
      keepAlive: true,
      maxSockets: 16,
      minVersion: 'TLSv1.2',
      ...(options.certificateAuthorities === undefined
        ? {}
        : { ca: trustedCertificates(options.certificateAuthorities) }),
    });
  }

  /** The base URL of `host[:port]`: plain HTTP only where it was allowed by name. */
  baseUrl(host: string): URL {
    return new URL(`${this.#options.plainHttpHosts.has(host) ? 'http' : 'https'}://${host}`);
  }

  /** Whether a URL may be spoken to at all. */
  allows(url: URL): boolean {
    return url.protocol === 'https:' || (url.protocol === 'http:' && this.#options.plainHttpHosts.has(url.host));
  }

  /**
   * Sends a request and follows redirects of GET and HEAD.
   *
   * @throws SealpodError IMG_REGISTRY where the host cannot be reached, times out or redirects badly
   */
  async send(request: HttpRequest): Promise<HttpResponse> {
    let current = request;
    for (let redirects = 0; redirects <= maxRedirects; redirects++) {
      const response = await this.#sendOnce(current);
      const target = redirectTarget(current, response);
      if (target === undefined) return response;
      response.body.resume();
      current = { ...current, url: target, headers: headersFor(target, current) };
    }
    throw new SealpodError('IMG_REGISTRY', `${request.url.host} redirects more than ${maxRedirects} times`);
  }

  /** Ends idle connections. */
  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }

  async #sendOnce(request: HttpRequest): Promise<HttpResponse> {
    const { url, method, headers = {}, body, signal } = request;
    if (!this.allows(url)) {
      throw new SealpodError('IMG_REGISTRY', `${url.host} is not allowed to be spoken to over ${url.protocol}//`, {
        fix: 'use TLS, or allow this host as an insecure registry in measured configuration',
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<HttpResponse>();
    const secure = url.protocol === 'https:';
    const length = body instanceof Uint8Array ? { 'content-length': `${body.length}` } : {};
    const outgoing = (secure ? https : http).request(url, {
      method,
      headers: { 'user-agent': 'sealpod', ...headers, ...length },
      agent: secure ? this.#https : this.#http,
      ...(signal === undefined ? {} : { signal }),
    });
    outgoing.setTimeout(this.#options.idleTimeoutMs, () => {
      outgoing.destroy(new Error(`no byte for ${this.#options.idleTimeoutMs} ms`));
    });
    outgoing.once('response', (incoming) => {
      resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: incoming, url });
    });
    outgoing.on('error', (cause) => reject(unreachable(url, cause)));
    if (body === undefined || body instanceof Uint8Array) outgoing.end(body);
    else pipeline(body, outgoing).catch((cause: unknown) => reject(unreachable(url, cause)));
    return promise;
  }
}

/** Reads a body of at most `limit` bytes. @throws SealpodError IMG_REGISTRY */
export async function readBody(response: HttpResponse, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limit) {
        throw new SealpodError('IMG_REGISTRY', `${response.url.host} answers with too much`, {
          expected: `at most ${limit} bytes`,
        });
      }
      chunks.push(chunk);
    }
  } catch (cause) {
    throw cause instanceof SealpodError ? cause : unreachable(response.url, cause);
  }
  return Buffer.concat(chunks);
}

/** A failure on the way to `url`, without its query, which may hold a signature. */
export function unreachable(url: URL, cause: unknown): SealpodError {
  if (cause instanceof SealpodError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SealpodError('IMG_REGISTRY', `${url.host} cannot be reached or breaks off: ${reason}`, { cause });
}

function redirectTarget(request: HttpRequest, response: HttpResponse): URL | undefined {
  const { location } = response.headers;
  const redirected = [301, 302, 303, 307, 308].includes(response.status) && location !== undefined;
  if (!redirected || (request.method !== 'GET' && request.method !== 'HEAD')) return undefined;
  const target = URL.parse(location, request.url.href);
  if (target === null) throw new SealpodError('IMG_REGISTRY', `${request.url.host} redirects to a malformed location`);
  if (request.url.protocol === 'https:' && target.protocol !== 'https:') {
    throw new SealpodError('IMG_REGISTRY', `${request.url.host} redirects from TLS to ${target.protocol}//`);
  }
  return target;
}

function headersFor(target: URL, request: HttpRequest): Record<string, string> {
  const headers = Object.entries(request.headers ?? {});
  if (target.origin === request.url.origin) return Object.fromEntries(headers);
  return Object.fromEntries(headers.filter(([name]) => !credentialHeaders.has(name.toLowerCase())));
}

function trustedCertificates(additional: readonly string[]): string[] {
  return [...tls.rootCertificates, ...additional];
}
