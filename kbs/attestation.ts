import { readFile } from 'node:fs/promises';
import {
  type AttestationService,
  connectAttestationService,
  createAttestationService,
} from '@sealpod/attestation-service';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import type { Storage } from '@sealpod/storage';
import type { AttestationServiceConfig } from './attestation-config.ts';

const largestKeySet = 64 * 1024;

/** What the key broker uses of the attestation service that its configuration names. */
export interface OpenedAttestationService {
  readonly service: AttestationService;
  /** The keys whose tokens this key broker believes. */
  readonly keys: () => Promise<{ readonly keys: readonly JsonObject[] }>;
}

/** Opens what the configuration names. In process it keeps its keys, policies and reference values in `storage`. */
export async function openAttestationService(
  config: AttestationServiceConfig,
  storage: Storage,
  now: () => number,
): Promise<OpenedAttestationService> {
  if (config.type === 'builtin') {
    const { tpm, sample, token } = config;
    const options = { sample, token, now: () => new Date(now()) };
    const service = await createAttestationService(tpm === undefined ? options : { ...options, tpm }, { storage });
    return { service, keys: () => service.jwks() };
  }
  const { address, tls, adminSecret, timeoutMs, keys } = config;
  const service = connectAttestationService({
    address,
    timeoutMs,
    ...('url' in keys ? { jwksUrl: keys.url } : {}),
    ...(tls === undefined ? {} : { tls }),
    ...(adminSecret === undefined ? {} : { adminSecret }),
  });
  return { service, keys: 'url' in keys ? () => service.jwks() : () => pinnedKeys(keys.file) };
}

/** The keys of a file that pins them. Throws `TOKEN_INVALID` where they cannot be had: then no token is believed. */
async function pinnedKeys(file: string): Promise<{ readonly keys: readonly JsonObject[] }> {
  try {
    const limits = { what: 'key set', maxSize: largestKeySet };
    const list = asJsonObject(parseJson(await readFile(file), limits), 'key set')['keys'];
    if (!Array.isArray(list)) throw new SealpodError('REQUEST_FORMAT', 'the key set has no list of keys');
    return { keys: list.map((key: JsonValue) => asJsonObject(key, 'key')) };
  } catch (cause) {
    const { message } = asSealpodError(cause);
    const problem = `the keys of the attestation service cannot be read: ${message}`;
    throw new SealpodError('TOKEN_INVALID', problem, { source: file, cause });
  }
}
