import { get as plainGet } from 'node:http';
import { get as secureGet } from 'node:https';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, parseJson } from '@sealpod/protocol/json';

const maxBytes = 64 * 1024;

/**
 * Fetches a JWK set. Redirects are not followed: who publishes the keys decides whom to trust.
 *
 * @param certificates PEM of what an `https` server's certificate must chain to; the system's authorities by default
 * @throws SealpodError NETWORK where it cannot be had, REQUEST_FORMAT or REQUEST_TOO_LARGE where it is no key set
 */
export async function fetchKeySet(
  url: string,
  { certificates, timeoutMs }: { readonly certificates?: string; readonly timeoutMs: number },
): Promise<{ readonly keys: readonly JsonObject[] }> {
  const body = await fetchText(url, certificates, timeoutMs);
  const keys = optionalMember(asJsonObject(parseJson(body, { what: 'key set', maxSize: maxBytes }), 'key set'), 'keys');
  if (!Array.isArray(keys)) throw new SealpodError('REQUEST_FORMAT', 'the key set has no keys', { source: url });
  return { keys: keys.map((key: JsonValue) => asJsonObject(key, 'key of the key set')) };
}

function fetchText(url: string, certificates: string | undefined, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const fail = (actual: string, cause?: unknown): void =>
      reject(
        new SealpodError('NETWORK', 'the key set of the attestation service cannot be had', {
          actual,
          source: url,
          cause,
        }),
      );
    const options = {
      signal: AbortSignal.timeout(timeoutMs),
      ...(certificates === undefined ? {} : { ca: certificates }),
    };
    const get = new URL(url).protocol === 'https:' ? secureGet : plainGet;
    get(url, options, (response) => {
      if (response.statusCode !== 200) {
        response.destroy();
        fail(`status ${response.statusCode}`);
        return;
      }
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        chunks.push(chunk);
        if (size > maxBytes) response.destroy(new Error(`more than ${maxBytes} bytes`));
      });
      response.on('end', () => resolve(Buffer.concat(chunks)));
      response.on('error', (cause) => fail(cause.message, cause));
    }).on('error', (cause) => fail(cause.message, cause));
  });
}
