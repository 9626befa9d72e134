import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/** Limits of one request to a verification service. */
export interface ServiceHttpOptions {
  /** PEM certificates that the service's own chains to; the system's by default. */
  readonly authorities?: string;
  /** For one try; milliseconds, default 10 000. */
  readonly timeoutMs?: number;
  /** Bytes of an answer at most, default 1 MiB. */
  readonly maxBytes?: number;
  /** Tries after the first, where the service is overloaded or away; default 2. */
  readonly retries?: number;
  /** The first pause between tries, doubled each time; milliseconds, default 500. */
  readonly pauseMs?: number;
}

/** One request. */
export interface ServiceRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

/** An answer of any status. */
export interface ServiceAnswer {
  readonly status: number;
  readonly location?: string;
  readonly body: Buffer;
}

const longestPauseMs = 10_000;

/**
 * Asks a service that may have authorities of its own, which `fetch` cannot be told. Overload (429, 503) and failing
 * connections are tried again.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE after the last try
 */
export async function askService(request: ServiceRequest, options: ServiceHttpOptions = {}): Promise<ServiceAnswer> {
  const { retries = 2, pauseMs = 500 } = options;
  for (let attempt = 0; ; attempt += 1) {
    let problem: unknown;
    let wanted: number | undefined;
    try {
      const { retryAfter, ...answer } = await askOnce(request, options);
      if (answer.status !== 429 && answer.status !== 503) return answer;
      problem = `status ${answer.status}`;
      wanted = retryAfter;
    } catch (cause) {
      problem = cause;
    }
    if (attempt >= retries) {
      throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'a verification service could not be asked', {
        expected: `an answer from ${new URL(request.url).origin}`,
        actual: problem instanceof Error ? problem.message : String(problem),
        cause: problem,
      });
    }
    await delay(Math.min(longestPauseMs, wanted ?? pauseMs * 2 ** attempt * (0.5 + Math.random() / 2)));
  }
}

function askOnce(
  { method, url, headers, body }: ServiceRequest,
  { authorities, timeoutMs = 10_000, maxBytes = 1024 * 1024 }: ServiceHttpOptions,
): Promise<ServiceAnswer & { readonly retryAfter?: number }> {
  const send = new URL(url).protocol === 'https:' ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const request = send(
      url,
      {
        method,
        headers: { ...headers, ...(body === undefined ? {} : { 'content-length': body.length }) },
        signal: AbortSignal.timeout(timeoutMs),
        ...(authorities === undefined ? {} : { ca: authorities }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        let length = 0;
        response.on('data', (chunk: Buffer) => {
          length += chunk.length;
          if (length > maxBytes) response.destroy(new RangeError(`an answer larger than ${maxBytes} bytes`));
          chunks.push(chunk);
        });
        response.on('error', reject);
        response.on('end', () => {
          const seconds = Number(response.headers['retry-after'] ?? Number.NaN);
          resolve({
            status: response.statusCode ?? 0,
            body: Buffer.concat(chunks),
            ...(response.headers.location === undefined ? {} : { location: response.headers.location }),
            ...(Number.isFinite(seconds) && seconds >= 0 ? { retryAfter: seconds * 1000 } : {}),
          });
        });
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}
