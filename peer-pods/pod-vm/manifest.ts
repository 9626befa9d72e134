import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

/** A part of the image: where it lies in the disk (bytes) and its SHA-256 (hex). */
export interface ManifestPart {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
  readonly offset?: number;
}

/** What `manifest.json` beside an image says of it. Equal inputs give an equal manifest. */
export interface Manifest {
  readonly version: 1;
  /** `sha256:<hex>` of the whole disk. */
  readonly image: string;
  /** File name of the disk, in the manifest's directory. */
  readonly disk: string;
  readonly diskSize: number;
  readonly rootHash: string;
  readonly commandLine: string;
  readonly kernelRelease: string;
  readonly parts: readonly ManifestPart[];
  /** Packages of which at least one file is in the image. */
  readonly packages: readonly { readonly name: string; readonly version: string; readonly sha256: string }[];
  readonly tools: Readonly<Record<string, string>>;
  /** SHA-256 over all inputs: where it equals that of a new build, nothing is built. */
  readonly inputs: string;
  /** Set where the image was altered on purpose, and how. */
  readonly altered?: string;
}

export const manifestName = 'manifest.json';
export const diskName = 'disk.raw';

/**
 * Reads the manifest of an image.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where it is absent or malformed.
 */
export async function readManifest(imageDirectory: string): Promise<Manifest> {
  const file = join(imageDirectory, manifestName);
  try {
    const manifest: Manifest = JSON.parse(await readFile(file, 'utf8'));
    if (manifest.version !== 1 || typeof manifest.disk !== 'string' || typeof manifest.rootHash !== 'string') {
      throw new SealpodError('PROVIDER_IMAGE', `${file} is not the manifest of a pod VM image`);
    }
    return manifest;
  } catch (error) {
    if (error instanceof SealpodError) throw error;
    throw new SealpodError('PROVIDER_IMAGE', `there is no pod VM image in ${imageDirectory}`, {
      cause: error,
      source: file,
    });
  }
}
