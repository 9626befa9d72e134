import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { Authenticator, type Credentials, notAuthorized } from './authentication.ts';
import { readBlob } from './blob-reader.ts';
import { hashFor, isDigest, requireDigest, sha256Digest } from './digest.ts';
import { maxManifestBytes, mediaTypes } from './manifest.ts';
import { registryEndpoint } from './reference.ts';
import { type HttpRequest, type HttpResponse, readBody, Transport } from './transport.ts';

export interface RegistryClientOptions {
  /** `host[:port]` as it stands in references. */
  readonly registry: string;
  /** `host[:port]` of registries that may be spoken to without TLS; none by default. */
  readonly plainHttpHosts?: ReadonlySet<string>;
  readonly credentials?: Credentials | undefined;
  /** PEM certificates trusted besides the built-in ones. */
  readonly certificateAuthorities?: readonly string[];
  /** Milliseconds without a byte after which a request fails; 30 000 by default. */
  readonly idleTimeoutMs?: number;
  /** How often a failing GET or HEAD is tried in all, and a broken blob without progress; 5 by default. */
  readonly maxAttempts?: number;
  /** First pause before another try in milliseconds, doubled each time up to 5 s; 200 by default. */
  readonly retryDelayMs?: number;
}

/** A manifest or index as the registry sent it, its bytes checked against `digest`. */
export interface FetchedManifest {
  readonly bytes: Buffer;
  readonly digest: string;
  /** Content-Type without parameters; undefined where the registry sent none. */
  readonly mediaType?: string;
}

/** A blob to write whose digest is known only when its last byte has been sent. */
export interface BlobUpload {
  readonly source: Readable;
  /** Called when `source` has ended. */
  readonly digest: () => string;
}

const manifestTypes = [mediaTypes.ociManifest, mediaTypes.ociIndex, mediaTypes.dockerManifest, mediaTypes.dockerList];
const maxErrorBytes = 64 * 1024;
const maxRetryDelayMs = 5000;
const maxResumes = 50;
type Action = 'pull' | 'pull,push';

/** A client of one registry (OCI distribution-spec 1.1). Repositories are given as in {@link ImageReference}. */
export class RegistryClient {
  readonly #transport: Transport;
  readonly #authenticator: Authenticator;
  readonly #base: URL;
  readonly #maxAttempts: number;
  readonly #retryDelayMs: number;

  constructor(options: RegistryClientOptions) {
    this.#transport = new Transport({
      plainHttpHosts: options.plainHttpHosts ?? new Set(),
      idleTimeoutMs: options.idleTimeoutMs ?? 30_000,
      ...(options.certificateAuthorities === undefined
        ? {}
        : { certificateAuthorities: options.certificateAuthorities }),
    });
    this.#authenticator = new Authenticator(this.#transport, options.credentials);
    this.#base = this.#transport.baseUrl(registryEndpoint(options.registry));
    this.#maxAttempts = options.maxAttempts ?? 5;
    this.#retryDelayMs = options.retryDelayMs ?? 200;
  }

  /** Asks whether the registry speaks the protocol and takes the credentials. @throws SealpodError */
  async ping(signal?: AbortSignal): Promise<void> {
    const response = await this.#sendRetrying('', 'pull', { method: 'GET', url: new URL('/v2/', this.#base), signal });
    response.body.resume();
    await this.#expect(response, 'ping', [200]);
  }

  /**
   * Fetches a manifest or index by tag or digest. Asked for by digest, the bytes have it; asked for by tag, the digest
   * is what the bytes have.
   *
   * @throws SealpodError IMG_DIGEST, IMG_REGISTRY, IMG_AUTH
   */
  async fetchManifest(repository: string, reference: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const url = this.#url(repository, `manifests/${reference}`);
    const headers = { accept: manifestTypes.join(', ') };
    const response = await this.#sendRetrying(repository, 'pull', { method: 'GET', url, headers, signal });
    await this.#expect(response, `manifest ${repository}:${reference}`, [200]);
    const bytes = await readBody(response, maxManifestBytes);
    const digest = isDigest(reference) ? reference : sha256Digest(bytes);
    requireDigest(hashFor(digest).update(bytes), digest, 'manifest');
    const mediaType = response.headers['content-type']?.split(';')[0]?.trim();
    return mediaType === undefined ? { bytes, digest } : { bytes, digest, mediaType };
  }

  /**
   * Opens a blob as a stream; it fails at its end where the bytes have not the digest. Nothing is sent before the
   * stream is read.
   */
  openBlob(
    repository: string,
    blob: { readonly digest: string; readonly size: number },
    signal?: AbortSignal,
  ): Readable {
    return Readable.from(
      readBlob({
        blob,
        open: async (offset) => {
          const headers: Record<string, string> = { 'accept-encoding': 'identity' };
          if (offset > 0) headers['range'] = `bytes=${offset}-`;
          const url = this.#url(repository, `blobs/${blob.digest}`);
          const response = await this.#sendRetrying(repository, 'pull', { method: 'GET', url, headers, signal });
          return this.#expect(response, `blob ${blob.digest}`, offset > 0 ? [200, 206] : [200]);
        },
        maxFruitlessAttempts: this.#maxAttempts,
        maxAttempts: maxResumes,
        wait: (attempt) => this.#pause(attempt, signal),
      }),
      { objectMode: true, highWaterMark: 4 },
    );
  }

  /** Reads a whole small blob. @throws SealpodError IMG_REGISTRY where it is larger than `limit` bytes */
  async fetchBlob(
    repository: string,
    blob: { readonly digest: string; readonly size: number },
    limit: number,
    signal?: AbortSignal,
  ): Promise<Buffer> {
    if (blob.size > limit) {
      throw new SealpodError('IMG_REGISTRY', `blob ${blob.digest} is too large`, {
        expected: `at most ${limit} bytes`,
        actual: `${blob.size} bytes`,
      });
    }
    const chunks: Buffer[] = [];
    for await (const chunk of this.openBlob(repository, blob, signal) as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /** Whether the repository already has a blob. @throws SealpodError */
  async hasBlob(repository: string, digest: string, signal?: AbortSignal): Promise<boolean> {
    const url = this.#url(repository, `blobs/${digest}`);
    const response = await this.#sendRetrying(repository, 'pull,push', { method: 'HEAD', url, signal });
    response.body.resume();
    if (response.status === 404) return false;
    await this.#expect(response, `blob ${digest}`, [200]);
    return true;
  }

  /** Streams a blob into the repository and returns its digest. Not retried: the source can be read but once. */
  async uploadBlob(repository: string, upload: BlobUpload, signal?: AbortSignal): Promise<string> {
    const started = await this.#send(repository, 'pull,push', {
      method: 'POST',
      url: this.#url(repository, 'blobs/uploads/'),
      body: new Uint8Array(),
      signal,
    });
    started.body.resume();
    await this.#expect(started, 'start of upload', [202]);
    const patched = await this.#send(repository, 'pull,push', {
      method: 'PATCH',
      url: this.#location(started),
      headers: { 'content-type': 'application/octet-stream' },
      body: upload.source,
      signal,
    });
    patched.body.resume();
    await this.#expect(patched, 'upload', [202]);
    const digest = upload.digest();
    const url = this.#location(patched);
    url.searchParams.set('digest', digest);
    const finished = await this.#send(repository, 'pull,push', { method: 'PUT', url, body: new Uint8Array(), signal });
    finished.body.resume();
    await this.#expect(finished, 'end of upload', [201]);
    return digest;
  }

  /** Stores a manifest under a tag or its digest and returns its digest. @throws SealpodError */
  async putManifest(
    repository: string,
    reference: string,
    manifest: { readonly mediaType: string; readonly bytes: Uint8Array },
    signal?: AbortSignal,
  ): Promise<string> {
    const response = await this.#send(repository, 'pull,push', {
      method: 'PUT',
      url: this.#url(repository, `manifests/${reference}`),
      headers: { 'content-type': manifest.mediaType },
      body: manifest.bytes,
      signal,
    });
    await this.#expect(response, `manifest ${repository}:${reference}`, [201]);
    response.body.resume();
    return sha256Digest(manifest.bytes);
  }

  /** Ends idle connections. */
  close(): void {
    this.#transport.close();
  }

  #url(repository: string, path: string): URL {
    return new URL(`/v2/${repository}/${path}`, this.#base);
  }

  #location(response: HttpResponse): URL {
    const url = URL.parse(response.headers.location ?? '', response.url.href);
    if (url === null || url.origin !== this.#base.origin) {
      throw new SealpodError('IMG_REGISTRY', `${this.#base.host} gives no usable upload location`);
    }
    return url;
  }

  /** Sends with what is known to authorise, and once more with an answer where that is challenged. */
  async #send(repository: string, action: Action, request: HttpRequest): Promise<HttpResponse> {
    const scope = repository === '' ? '' : `repository:${repository}:${action}`;
    const attempt = (authorization: string | undefined): Promise<HttpResponse> =>
      this.#transport.send(
        authorization === undefined ? request : { ...request, headers: { ...request.headers, authorization } },
      );
    const response = await attempt(this.#authenticator.header(scope));
    if (response.status !== 401 || response.url.origin !== this.#base.origin) return response;
    response.body.resume();
    const authorization = await this.#authenticator.answer(scope, response, request.signal);
    if (request.body instanceof Readable) {
      throw notAuthorized(this.#base.host, 'the authorization expired during an upload');
    }
    return attempt(authorization);
  }

  /** As {@link #send}, for requests without effect: tries again after 429, 5xx and broken connections. */
  async #sendRetrying(repository: string, action: Action, request: HttpRequest): Promise<HttpResponse> {
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await this.#send(repository, action, request);
        const temporary = response.status === 429 || response.status >= 500;
        if (!temporary || attempt >= this.#maxAttempts) return response;
        response.body.resume();
      } catch (error) {
        const broken = error instanceof SealpodError && error.code === 'IMG_REGISTRY' && error.cause !== undefined;
        if (!broken || attempt >= this.#maxAttempts || request.signal?.aborted === true) throw error;
      }
      await this.#pause(attempt, request.signal);
    }
  }

  async #pause(attempt: number, signal?: AbortSignal): Promise<void> {
    const milliseconds = Math.min(this.#retryDelayMs * 2 ** (attempt - 1), maxRetryDelayMs);
    await delay(milliseconds, undefined, signal === undefined ? {} : { signal });
  }

  async #expect(response: HttpResponse, what: string, statuses: readonly number[]): Promise<HttpResponse> {
    if (statuses.includes(response.status)) return response;
    const host = response.url.host;
    if (response.status === 401 || response.status === 403) {
      response.body.resume();
      throw notAuthorized(host, `it answers ${response.status} to ${what}`);
    }
    const reason = response.body.readableEnded ? '' : (await readBody(response, maxErrorBytes)).toString('utf8');
    throw new SealpodError('IMG_REGISTRY', `${host} answers ${response.status} to ${what}`, {
      expected: statuses.join(' or '),
      actual: `${response.status} ${reason.slice(0, 256).replaceAll(/[^\x20-\x7e]+/g, ' ')}`.trim(),
    });
  }
}
