import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/** Limits of one question to a collateral service. */
export interface CollateralHttpOptions {
  /** For one try; milliseconds, default 10 000. */
  readonly timeoutMs?: number;
  /** Bytes of an answer at most, default 1 MiB. */
  readonly maxBytes?: number;
  /** Tries after the first, where the service is overloaded or away; default 3. */
  readonly retries?: number;
  /** The first pause between tries, doubled each time; milliseconds, default 500. */
  readonly pauseMs?: number;
  /** The longest pause that a service may ask for by `Retry-After`; milliseconds, default 10 000. */
  readonly longestPauseMs?: number;
}

/** What a service answered with status 200. */
export interface CollateralAnswer {
  readonly body: Buffer;
  readonly headers: Headers;
}

/**
 * GET of a collateral service. Answers are not to be believed: they are signed things, which the caller verifies.
 *
 * @returns undefined where the service says that there is no such thing (404, 410)
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE after the last try
 */
export async function getCollateral(
  url: string,
  options: CollateralHttpOptions = {},
): Promise<CollateralAnswer | undefined> {
  const { retries = 3, pauseMs = 500, longestPauseMs = 10_000 } = options;
  for (let attempt = 0; ; attempt += 1) {
    const outcome = await tryOnce(url, options);
    if (!('retry' in outcome)) return outcome.answer;
    if (attempt >= retries) {
      throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'a collateral service could not be asked', {
        expected: `an answer from ${url}`,
        actual: outcome.retry,
        ...(outcome.cause === undefined ? {} : { cause: outcome.cause }),
      });
    }
    const jitter = 0.5 + Math.random() / 2;
    await delay(Math.min(longestPauseMs, outcome.pauseMs ?? pauseMs * 2 ** attempt * jitter));
  }
}

type Outcome =
  | { readonly answer: CollateralAnswer | undefined }
  | { readonly retry: string; readonly pauseMs?: number; readonly cause?: unknown };

async function tryOnce(
  url: string,
  { timeoutMs = 10_000, maxBytes = 1024 * 1024 }: CollateralHttpOptions,
): Promise<Outcome> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs), redirect: 'error' });
    if (response.status === 200)
      return { answer: { body: await readBody(response, maxBytes), headers: response.headers } };
    await response.body?.cancel();
    if (response.status === 404 || response.status === 410) return { answer: undefined };
    const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
    return {
      retry: `status ${response.status}`,
      ...(Number.isFinite(seconds) && seconds >= 0 ? { pauseMs: seconds * 1000 } : {}),
    };
  } catch (cause) {
    return { retry: cause instanceof Error ? cause.message : String(cause), cause };
  }
}

async function readBody(response: Response, maxBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > maxBytes) throw new RangeError(`an answer larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
