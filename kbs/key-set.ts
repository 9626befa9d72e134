import { readFile } from 'node:fs/promises';
import { get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';

const largestKeySet = 256 * 1024;

/** Where the keys that sign attestation tokens are: in a file that pins them, or where the service publishes them. */
export type KeySetSource = { readonly file: string } | { readonly url: string };

/**
 * Reads a JWK set (RFC 7517). Redirects are not followed. Throws `TOKEN_INVALID` where it cannot be had: then no token
 * is believed.
 */
export async function readKeySet(
  source: KeySetSource,
  options: { readonly certificates?: string | undefined; readonly timeoutMs: number },
): Promise<{ readonly keys: readonly JsonObject[] }> {
  try {
    const { certificates, timeoutMs } = options;
    const bytes = 'file' in source ? await readFile(source.file) : await download(source.url, certificates, timeoutMs);
    const list = asJsonObject(parseJson(bytes, { what: 'key set', maxSize: largestKeySet }), 'key set')['keys'];
    if (!Array.isArray(list)) throw new SealpodError('REQUEST_FORMAT', 'the key set has no list of keys');
    return { keys: list.map((key: JsonValue) => asJsonObject(key, 'key')) };
  } catch (cause) {
    const problem = `the keys of the attestation service cannot be read: ${asSealpodError(cause).message}`;
    throw new SealpodError('TOKEN_INVALID', problem, { source: 'file' in source ? source.file : source.url, cause });
  }
}

function download(url: string, ca: string | undefined, timeoutMs: number): Promise<Buffer> {
  const get = url.startsWith('https:') ? httpsGet : httpGet;
  const signal = AbortSignal.timeout(timeoutMs);
  return new Promise((resolve, reject) => {
    const request = get(url, ca === undefined ? { signal } : { signal, ca }, (response) => {
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > largestKeySet) response.destroy(new Error('the key set is too large'));
        else chunks.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks));
        else reject(new Error(`answered ${response.statusCode}`));
      });
    });
    request.on('error', reject);
  });
}
