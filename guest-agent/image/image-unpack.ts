import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { createLayerDecryptor, parseLayerMediaType, readEncryptionAnnotations } from '@sealpod/protocol/ocicrypt';
import type { Descriptor, ImageManifest, RegistryClient } from '@sealpod/registry';
import type { ImageConfiguration } from './configuration.ts';
import { unpackLayer } from './layer.ts';
import { decryptionFailure, type UnwrapKey, unwrapLayerOptions } from './layer-keys.ts';
import {
  createRootfs,
  type LayerChanges,
  mergeLayer,
  type SpecialFileTools,
  UnpackBudget,
  type UnpackLimits,
} from './unpack/index.ts';

export interface ImageUnpackOptions {
  readonly client: RegistryClient;
  readonly repository: string;
  readonly manifest: ImageManifest;
  readonly configuration: ImageConfiguration;
  readonly unwrapKey: UnwrapKey;
  /** New directory of this unpacking alone, mode 0700; what is in it is worth nothing before this has returned. */
  readonly quarantine: string;
  readonly limits: UnpackLimits;
  /** Layers that are read at the same time. */
  readonly concurrency: number;
  readonly tools: SpecialFileTools;
  readonly notice: (text: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Unpacks all layers of an image, several at a time, each into a directory of its own, and merges them in their order
 * once every one of them has been verified. Leaves `<quarantine>/rootfs` and nothing else.
 *
 * @throws SealpodError
 */
export async function unpackImage(options: ImageUnpackOptions): Promise<void> {
  const { manifest, configuration, quarantine } = options;
  if (manifest.layers.length !== configuration.diffIds.length) {
    throw new SealpodError('IMG_FORMAT', 'image has not one diff id for each layer', {
      expected: `${manifest.layers.length}`,
      actual: `${configuration.diffIds.length}`,
    });
  }
  const budget = new UnpackBudget(options.limits);
  const unwrapKey = oneFirst(options.unwrapKey);
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const changes: LayerChanges[] = [];
  const todo = manifest.layers.map((layer, index) => ({ layer, index })).values();
  const work = async (): Promise<void> => {
    for (const { layer, index } of todo) {
      changes[index] = await unpackOne({ ...options, unwrapKey, signal }, layer, index, budget);
    }
  };
  const workers = Array.from({ length: Math.max(1, options.concurrency) }, () =>
    work().catch((error: unknown) => {
      stop.abort();
      throw error;
    }),
  );
  // All have stopped before anything is removed or the failure is told: the first failure, not the stops it caused.
  const results = await Promise.allSettled(workers);
  options.signal.throwIfAborted();
  throwFirstFailure(results);
  const rootfs = join(quarantine, 'rootfs');
  createRootfs(rootfs);
  try {
    for (const [index, change] of changes.entries()) mergeLayer(rootfs, layerDirectory(quarantine, index), change);
  } catch (error) {
    throw asSealpodError(error, 'IMG_UNPACK');
  }
}

async function unpackOne(
  options: ImageUnpackOptions,
  layer: Descriptor,
  index: number,
  budget: UnpackBudget,
): Promise<LayerChanges> {
  const { encrypted, compression } = parseLayerMediaType(layer.mediaType);
  const decryptor = encrypted ? await decryptorFor(layer, options.unwrapKey) : undefined;
  options.signal.throwIfAborted();
  const directory = layerDirectory(options.quarantine, index);
  createRootfs(directory);
  try {
    return await unpackLayer({
      blob: options.client.openBlob(options.repository, layer, options.signal),
      decryptor,
      compression,
      diffId: options.configuration.diffIds[index] ?? '',
      directory,
      budget,
      tools: options.tools,
      notice: options.notice,
    });
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error instanceof SealpodError && error.code === 'IMG_DECRYPT_KEY' ? decryptionFailure(error) : error;
  }
}

async function decryptorFor(layer: Descriptor, unwrapKey: UnwrapKey): Promise<ReturnType<typeof createLayerDecryptor>> {
  const { publicOptions, annotationPackets } = readEncryptionAnnotations(layer.annotations ?? {});
  return createLayerDecryptor(await unwrapLayerOptions(annotationPackets, unwrapKey), publicOptions);
}

/**
 * Lets the first call end before the others begin: it attests and fetches the key, which all others then find.
 */
function oneFirst(unwrapKey: UnwrapKey): UnwrapKey {
  let first: Promise<unknown> | undefined;
  return async (packet) => {
    if (first !== undefined) {
      await first.catch(() => undefined);
      return unwrapKey(packet);
    }
    const result = unwrapKey(packet);
    first = result;
    return result;
  };
}

function throwFirstFailure(results: readonly PromiseSettledResult<void>[]): void {
  const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
  const own = failures.find((failure) => !isAbort(failure)) ?? failures[0];
  if (own !== undefined) throw asSealpodError(own);
}

/** Whether a failure is only the echo of another layer's. */
function isAbort(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) if (at.name === 'AbortError') return true;
  return false;
}

function layerDirectory(quarantine: string, index: number): string {
  return join(quarantine, `layer-${index}`);
}

/** Makes an unpacked image visible under its final name, in one step. */
export async function publishImage(quarantine: string, directory: string, record: string): Promise<void> {
  await writeFile(join(quarantine, 'image.json'), record, { mode: 0o600 });
  await mkdir(join(directory, '..'), { recursive: true, mode: 0o700 });
  await rename(quarantine, directory);
}
