import { readFile } from 'node:fs/promises';
import { get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import {
  type AttestationService,
  connectAttestationService,
  createAttestationService,
} from '@sealpod/attestation-service';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import type { Storage } from '@sealpod/storage';
import type { AttestationServiceConfig } from './attestation-config.ts';

const largestKeySet = 256 * 1024;

/** Opens what the configuration names. In process it keeps its keys, policies and reference values in `storage`. */
export async function openAttestationService(
  config: AttestationServiceConfig,
  storage: Storage,
  now: () => number,
): Promise<AttestationService> {
  if (config.type === 'grpc') {
    const { address, tls, adminSecret, timeoutMs } = config;
    return connectAttestationService({
      address,
      timeoutMs,
      jwks: () => keySet(config),
      ...(tls === undefined ? {} : { tls }),
      ...(adminSecret === undefined ? {} : { adminSecret }),
    });
  }
  const { tpm, sample, token } = config;
  const options = { sample, token, now: () => new Date(now()) };
  return createAttestationService(tpm === undefined ? options : { ...options, tpm }, { storage });
}

/** The keys that sign the tokens of a remote attestation service. Throws `TOKEN_INVALID` where they cannot be had. */
async function keySet(config: AttestationServiceConfig & { type: 'grpc' }): Promise<{ keys: readonly JsonObject[] }> {
  const { keys, tls, timeoutMs } = config;
  const source = 'file' in keys ? keys.file : keys.url;
  try {
    const bytes = 'file' in keys ? await readFile(keys.file) : await download(keys.url, tls?.certificates, timeoutMs);
    const root = asJsonObject(parseJson(bytes, { what: 'key set', maxSize: largestKeySet }), 'key set');
    const list = root['keys'];
    if (!Array.isArray(list)) throw new SealpodError('REQUEST_FORMAT', 'the key set has no list of keys');
    return { keys: list.map((key: JsonValue) => asJsonObject(key, 'key')) };
  } catch (cause) {
    const { message } = asSealpodError(cause);
    throw new SealpodError('TOKEN_INVALID', `the keys of the attestation service cannot be read: ${message}`, {
      source,
      cause,
    });
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
