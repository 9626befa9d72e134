import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { SealpodError } from '@sealpod/protocol/errors';
import { isReasonCode, type ReasonCode } from '@sealpod/protocol/reason-codes';

/** Where the key broker is, and who asks. */
export interface KbsConnection {
  readonly url: string;
  /** PEM of the certificate to trust, and only that one. Without it the system's roots apply. */
  readonly certificatePem?: string;
  /** Makes a bearer token for one request; an administrator's token is short-lived and never stored. */
  readonly token: () => Promise<string>;
}

/** One answer of the key broker, fully read. */
export interface KbsAnswer {
  readonly status: number;
  readonly body: Buffer;
  readonly correlationId?: string;
}

const maxAnswerBytes = 16 << 20;
const timeoutMs = 30_000;

/** Client of the key broker's administration API. */
export class KbsClient {
  readonly #connection: KbsConnection;

  constructor(connection: KbsConnection) {
    this.#connection = connection;
  }

  /** Reads a JSON answer. @throws SealpodError with the key broker's own code where it refuses. */
  async get(path: string): Promise<unknown> {
    return parseJson(await this.send('GET', path), path);
  }

  /** Writes `body` (bytes as they are, anything else as JSON); returns the JSON answer, or undefined where it is empty. */
  async put(path: string, body: Uint8Array | string | object, contentType?: string): Promise<unknown> {
    return this.#write('PUT', path, body, contentType);
  }

  /** As `put`, by POST. */
  async post(path: string, body: Uint8Array | string | object, contentType?: string): Promise<unknown> {
    return this.#write('POST', path, body, contentType);
  }

  /** Deletes what is at `path`. */
  async delete(path: string): Promise<void> {
    await this.send('DELETE', path);
  }

  async #write(
    method: string,
    path: string,
    body: Uint8Array | string | object,
    contentType?: string,
  ): Promise<unknown> {
    const raw = body instanceof Uint8Array || typeof body === 'string';
    const type = contentType ?? (raw ? 'application/octet-stream' : 'application/json');
    const answer = await this.send(method, path, raw ? body : JSON.stringify(body), type);
    return answer.body.length === 0 ? undefined : parseJson(answer, path);
  }

  /** Sends one request and reads the whole answer. @throws SealpodError KBS_UNREACHABLE, or the refusal's own code. */
  async send(method: string, path: string, body?: Uint8Array | string, contentType?: string): Promise<KbsAnswer> {
    const url = new URL(path, this.#connection.url);
    const plain = url.protocol === 'http:';
    if (plain && !isLoopback(url.hostname)) {
      throw new SealpodError('USAGE', 'an administrator token is not sent in the clear', {
        expected: 'https://, or http:// on this machine',
        actual: url.origin,
      });
    }
    const request = plain ? requestHttp : requestHttps;
    const token = await this.#connection.token();
    const answer = await new Promise<KbsAnswer>((resolve, reject) => {
      const outgoing = request(url, {
        method,
        agent: false,
        timeout: timeoutMs,
        ...(this.#connection.certificatePem === undefined ? {} : { ca: this.#connection.certificatePem }),
        headers: {
          authorization: `Bearer ${token}`,
          accept: 'application/json',
          ...(body === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(body) }),
        },
      });
      outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
      outgoing.on('error', reject);
      outgoing.on('response', (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxAnswerBytes) outgoing.destroy(new Error(`the answer exceeds ${maxAnswerBytes} bytes`));
          chunks.push(chunk);
        });
        response.on('error', reject);
        response.on('end', () => {
          const correlationId = response.headers['x-correlation-id'];
          resolve({
            status: response.statusCode ?? 0,
            body: Buffer.concat(chunks),
            ...(typeof correlationId === 'string' ? { correlationId } : {}),
          });
        });
      });
      outgoing.end(body);
    }).catch((cause: unknown) => {
      throw new SealpodError('KBS_UNREACHABLE', `${method} ${url.origin}${url.pathname} failed`, { cause });
    });
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw refusal(answer, `${method} ${url.pathname}`);
  }
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

function parseJson(answer: KbsAnswer, path: string): unknown {
  try {
    return JSON.parse(answer.body.toString('utf8'));
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', `the key broker's answer to ${path} is no JSON`, { cause });
  }
}

function refusal(answer: KbsAnswer, what: string): SealpodError {
  let code: ReasonCode = answer.status === 404 ? 'NOT_FOUND' : 'INTERNAL';
  let detail = answer.body.toString('utf8').slice(0, 500);
  try {
    const body = JSON.parse(detail) as { code?: unknown; detail?: unknown };
    if (typeof body.code === 'string' && isReasonCode(body.code)) code = body.code;
    if (typeof body.detail === 'string') detail = body.detail;
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
  }
  return new SealpodError(
    code,
    `the key broker refused ${what} with ${answer.status}: ${detail || 'no reason given'}`,
    {
      ...(answer.correlationId === undefined ? {} : { correlationId: answer.correlationId }),
    },
  );
}
