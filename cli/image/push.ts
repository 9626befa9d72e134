import type { ImageReference } from '@sealpod/registry';
import { type ImageLocation, openImage, type RegistryAccess, registryClient } from './source.ts';

/**
 * Copies an image of this machine's platform to a registry, unchanged: the manifest keeps its digest.
 *
 * @returns digest of the manifest
 * @throws SealpodError as registries do
 */
export async function pushImage(
  options: RegistryAccess & { readonly source: ImageLocation; readonly destination: ImageReference },
): Promise<string> {
  const { repository, tag } = options.destination;
  const image = await openImage(options.source, options);
  const client = registryClient(options.destination, options);
  try {
    const { manifest, manifestDigest } = image;
    for (const blob of [...manifest.layers, manifest.config]) {
      if (await client.hasBlob(repository, blob.digest)) continue;
      await client.uploadBlob(repository, { source: image.openBlob(blob), digest: () => blob.digest });
    }
    await client.putManifest(repository, tag ?? manifestDigest, {
      mediaType: manifest.mediaType,
      bytes: image.manifestBytes,
    });
    return manifestDigest;
  } finally {
    client.close();
    await image.close();
  }
}
