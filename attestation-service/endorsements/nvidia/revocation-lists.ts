import { basename, join } from 'node:path';
import type { Storage } from '@sealpod/storage';
import { type CollateralHttpOptions, getCollateral } from '../http-client.ts';
import { readOptionalFile } from '../optional-file.ts';
import { storedAnswers } from '../stored-answers.ts';

/**
 * A place that has NVIDIA's revocation lists, DER. `path` is that of the distribution point which certificates name, e.g.
 * `/crl/l2-gh100.crl`. What it answers is bytes that nobody has verified; undefined where it does not have the list.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where the place cannot be asked
 */
export interface NvidiaListSource {
  /** For explanations. */
  readonly name: string;
  list(path: string): Promise<Buffer | undefined>;
}

const defaultUrl = 'https://crl.ndis.nvidia.com';
/** NVIDIA makes lists anew long before they end, which is after two months. */
const lifetime = 12 * 3_600_000;
const maxBytes = 4 * 1024 * 1024;

/**
 * Where NVIDIA publishes them, or a mirror. Only the path comes from a certificate: a device signs the certificates of its own
 * keys, and must not choose whom this service asks.
 */
export function listService(url = defaultUrl, options: CollateralHttpOptions = {}): NvidiaListSource {
  const base = url.replace(/\/+$/, '');
  return {
    name: `revocation lists of ${base}`,
    list: async (path) => (await getCollateral(`${base}${path}`, { maxBytes, ...options }))?.body,
  };
}

/** Lists in a folder, by the last part of their path, e.g. `l2-gh100.crl`. */
export function listFolder(folder: string): NvidiaListSource {
  return {
    name: `folder ${folder}`,
    list: (path) => readOptionalFile(join(folder, basename(path)), maxBytes),
  };
}

/** Keeps what a source answered. */
export function storedLists(source: NvidiaListSource, storage: Storage, now: () => Date): NvidiaListSource {
  const ask = storedAnswers(storage, 'collateral-nvidia', now);
  return { name: source.name, list: (path) => ask(`crl${path}`, lifetime, () => source.list(path)) };
}
