import { createPublicKey, type KeyObject } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { connect, type TLSSocket } from 'node:tls';
import { SealpodError } from '@sealpod/protocol/errors';

/** What a key broker answered. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export interface HttpsRequest {
  readonly method: 'GET' | 'POST';
  /** Path and query, beginning with `/`. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal?: AbortSignal;
}

export interface PinnedHttpsOptions {
  /** `https://host[:port][/base]`. The host's name is looked up by whatever DNS there is, and is not trusted. */
  readonly url: string;
  /** PEM certificates or public keys; the server must prove to hold the private key of one of them. */
  readonly pinned: string;
  /** Milliseconds until TCP and TLS are up. */
  readonly connectTimeoutMs?: number;
  /** Milliseconds for a whole exchange; attestation may take long (upstream's client: 60 s). */
  readonly timeoutMs?: number;
  /** Largest response body, in bytes. */
  readonly maxBodyBytes?: number;
}

const maxPins = 8;

/**
 * HTTPS to one server that is known by its public key and by nothing else: names, issuers and dates of its certificate are
 * not looked at, because DNS, routes and time belong to the host (a certificate authority would add more who can
 * impersonate the server). No byte of a request is sent before the key is checked.
 */
export class PinnedHttps {
  readonly #url: URL;
  readonly #pins: readonly Buffer[];
  readonly #agent: Agent;
  readonly #connectTimeoutMs: number;
  readonly #timeoutMs: number;
  readonly #maxBodyBytes: number;

  /** @throws SealpodError KBS_KEY where no key is pinned, INITDATA_SCHEMA where the address is no `https:` URL */
  constructor(options: PinnedHttpsOptions) {
    this.#url = parseBrokerUrl(options.url);
    this.#pins = parsePins(options.pinned);
    this.#connectTimeoutMs = options.connectTimeoutMs ?? 5_000;
    this.#timeoutMs = options.timeoutMs ?? 60_000;
    this.#maxBodyBytes = options.maxBodyBytes ?? 8 << 20;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 8, timeout: this.#timeoutMs });
    this.#agent.createConnection = (_options, created) => {
      this.#connect().then(
        (socket) => created?.(null, socket),
        (error: Error) => created?.(error, undefined as never),
      );
      return undefined;
    };
  }

  /** @throws SealpodError KBS_UNREACHABLE, KBS_KEY, REQUEST_TOO_LARGE */
  async send(message: HttpsRequest): Promise<HttpAnswer> {
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    const signal = message.signal === undefined ? timeout : AbortSignal.any([message.signal, timeout]);
    try {
      return await this.#exchange(message, signal);
    } catch (error) {
      // A kept connection that the server closed meanwhile; every request of this protocol may be repeated.
      if (error instanceof LostConnection)
        return await this.#exchange(message, signal).catch((again) => this.#fail(again));
      return this.#fail(error);
    }
  }

  #exchange(message: HttpsRequest, signal: AbortSignal): Promise<HttpAnswer> {
    return new Promise<HttpAnswer>((resolve, reject) => {
      const outgoing = request(
        {
          agent: this.#agent,
          method: message.method,
          host: this.#url.hostname,
          port: this.#url.port === '' ? 443 : Number(this.#url.port),
          path: this.#url.pathname.replace(/\/+$/, '') + message.path,
          headers: {
            ...message.headers,
            ...(message.body === undefined ? {} : { 'content-length': String(Buffer.byteLength(message.body)) }),
          },
          signal,
        },
        (incoming) => this.#readBody(incoming).then(resolve, reject),
      );
      outgoing.once('error', (cause: NodeJS.ErrnoException) => {
        const lost = outgoing.reusedSocket && (cause.code === 'ECONNRESET' || cause.code === 'EPIPE');
        reject(lost ? new LostConnection(cause.message, { cause }) : cause);
      });
      outgoing.end(message.body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }

  #connect(): Promise<TLSSocket> {
    const host = this.#url.hostname.replace(/^\[|\]$/g, '');
    return new Promise((resolve, reject) => {
      const socket = connect({
        host,
        port: this.#url.port === '' ? 443 : Number(this.#url.port),
        ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
        minVersion: 'TLSv1.2',
        // The certificate's chain, names and dates prove nothing here; its key is compared below.
        rejectUnauthorized: false,
        checkServerIdentity: () => undefined,
      });
      const timer = setTimeout(() => socket.destroy(new Error('the connection timed out')), this.#connectTimeoutMs);
      socket.once('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      socket.once('secureConnect', () => {
        clearTimeout(timer);
        const presented = socket.getPeerX509Certificate()?.publicKey;
        if (presented !== undefined && this.#isPinned(presented)) {
          resolve(socket);
          return;
        }
        socket.destroy();
        reject(
          new SealpodError('KBS_KEY', `${this.#url.host} does not hold the key that initdata pins`, {
            expected: this.#pins.map((pin) => pin.toString('base64')).join(' or '),
            actual: presented === undefined ? 'no certificate' : spki(presented).toString('base64'),
          }),
        );
      });
    });
  }

  #isPinned(presented: KeyObject): boolean {
    return this.#pins.some((pin) => pin.equals(spki(presented)));
  }

  async #readBody(incoming: IncomingMessage): Promise<HttpAnswer> {
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of incoming as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > this.#maxBodyBytes) {
        incoming.destroy();
        throw new SealpodError('REQUEST_TOO_LARGE', `the key broker's answer exceeds ${this.#maxBodyBytes} bytes`);
      }
      chunks.push(chunk);
    }
    return { status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks) };
  }

  #fail(cause: unknown): never {
    if (cause instanceof SealpodError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SealpodError('KBS_UNREACHABLE', `the key broker at ${this.#url.host} cannot be reached: ${reason}`, {
      cause,
    });
  }
}

class LostConnection extends Error {}

function parseBrokerUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.protocol !== 'https:' || url.username !== '' || url.search !== '' || url.hash !== '') {
    throw new SealpodError('INITDATA_SCHEMA', 'the key broker address must be a plain https URL', {
      expected: 'https://host[:port]',
      actual: text.slice(0, 256),
    });
  }
  return url;
}

function parsePins(pem: string): Buffer[] {
  const blocks = pem.match(/-----BEGIN (CERTIFICATE|PUBLIC KEY)-----[A-Za-z0-9+/=\s]+-----END \1-----/g) ?? [];
  if (blocks.length === 0 || blocks.length > maxPins) {
    throw new SealpodError('KBS_KEY', 'initdata pins no key of the key broker', {
      expected: `1 to ${maxPins} PEM certificates in token_configs.kbs.cert of aa.toml`,
      actual: `${blocks.length}`,
    });
  }
  return blocks.map((block) => {
    try {
      return spki(createPublicKey(block));
    } catch (cause) {
      throw new SealpodError('KBS_KEY', 'a certificate that initdata pins cannot be read', { cause });
    }
  });
}

function spki(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' });
}
