import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, parseJson } from '@sealpod/protocol/json';
import {
  createLayerEncryptor,
  encodeAnnotationPacket,
  encodePrivateLayerOptions,
  formatLayerMediaType,
  parseLayerMediaType,
  wrapPrivateOptions,
  writeEncryptionAnnotations,
} from '@sealpod/protocol/ocicrypt';
import { formatResourceUri, parseResourceUri } from '@sealpod/protocol/resource-uri';
import { type Descriptor, type ImageReference, mediaTypes, type RegistryClient } from '@sealpod/registry';
import { type ImageLocation, type OpenImage, openImage, type RegistryAccess, registryClient } from './source.ts';

export interface EncryptImageOptions extends RegistryAccess {
  readonly source: ImageLocation;
  /** Where the encrypted image is pushed to. */
  readonly destination: ImageReference;
  /** Resource URI under which the guest finds the key, e.g. `kbs:///default/image-key/1`. */
  readonly keyId: string;
  /** Key encryption key, 32 bytes. */
  readonly keyEncryptionKey: Uint8Array;
  /** Called once all layers are at the destination, before the manifest makes them an image. */
  readonly beforeManifest?: () => Promise<void>;
  /** Told as each layer is done. */
  readonly progress?: (done: number, total: number) => void;
}

/** What was pushed. */
export interface EncryptedImage {
  readonly manifestDigest: string;
  /** Of the configuration, which is not encrypted but says which layers it is of. */
  readonly configDigest: string;
  readonly keyId: string;
  readonly layers: readonly Descriptor[];
}

/**
 * Encrypts all layers of an image and pushes it, each layer under a key of its own that is wrapped with the key
 * encryption key. The result is what skopeo writes with a Confidential Containers key provider: media types and
 * annotations of the layers change. Other than there the configuration, whose digest is the image's id, gets a member that
 * tells the image from the plain one and from others of it: containerd 1.7 and older name a container's image by the first that
 * they know by that id, and guests of upstream take what they have pulled under it. Layers are streamed and never on disk.
 *
 * @throws SealpodError IMG_FORMAT where a layer is already encrypted; RES_NAME or IMG_DECRYPT_KEY for a bad key; as registries do
 */
export async function encryptImage(options: EncryptImageOptions): Promise<EncryptedImage> {
  const keyId = formatResourceUri(parseResourceUri(options.keyId));
  if (options.keyEncryptionKey.length !== 32) {
    throw new SealpodError('IMG_DECRYPT_KEY', 'key encryption key must be of 32 bytes');
  }
  const image = await openImage(options.source, options);
  const client = registryClient(options.destination, options);
  try {
    return await pushEncrypted(image, client, keyId, options);
  } finally {
    client.close();
    await image.close();
  }
}

async function pushEncrypted(
  image: OpenImage,
  client: RegistryClient,
  keyId: string,
  options: EncryptImageOptions,
): Promise<EncryptedImage> {
  const { manifest } = image;
  const { repository, tag, digest } = options.destination;
  if (digest !== undefined) throw new SealpodError('USAGE', 'an image cannot be pushed to a digest; name a tag');
  const layers: Descriptor[] = [];
  for (const layer of manifest.layers) {
    layers.push(await pushLayer(image, layer, client, repository, keyId, options.keyEncryptionKey));
    options.progress?.(layers.length, manifest.layers.length);
  }
  const config = await pushConfig(image, layers, client, repository);
  const document = { ...manifest.document, mediaType: mediaTypes.ociManifest, config, layers };
  const bytes = Buffer.from(JSON.stringify(document));
  await options.beforeManifest?.();
  const manifestDigest = await client.putManifest(repository, tag ?? 'latest', {
    mediaType: mediaTypes.ociManifest,
    bytes,
  });
  return { manifestDigest, configDigest: config.digest, keyId, layers };
}

async function pushLayer(
  image: OpenImage,
  layer: Descriptor,
  client: RegistryClient,
  repository: string,
  keyId: string,
  keyEncryptionKey: Uint8Array,
): Promise<Descriptor> {
  const mediaType = parseLayerMediaType(layer.mediaType);
  if (mediaType.encrypted) throw new SealpodError('IMG_FORMAT', `layer ${layer.digest} is already encrypted`);
  const encryptor = createLayerEncryptor();
  const encrypting = pipeline(image.openBlob(layer), encryptor.stream);
  const uploading = client.uploadBlob(repository, {
    source: encryptor.stream,
    digest: () => encryptor.result().ciphertextDigest,
  });
  const [encrypted, uploaded] = await Promise.allSettled([encrypting, uploading]);
  // What went wrong while reading explains what then went wrong while sending.
  if (uploaded.status === 'rejected') {
    const readFailure = encrypted.status === 'rejected' && encrypted.reason instanceof SealpodError;
    throw readFailure ? encrypted.reason : uploaded.reason;
  }
  if (encrypted.status === 'rejected') throw encrypted.reason;
  const { privateOptions, publicOptions, ciphertextDigest, size } = encryptor.result();
  const wrapped = wrapPrivateOptions(encodePrivateLayerOptions(privateOptions), keyEncryptionKey);
  const annotations = writeEncryptionAnnotations(publicOptions, encodeAnnotationPacket({ keyId, ...wrapped }));
  return {
    mediaType: formatLayerMediaType({ ...mediaType, encrypted: true }),
    digest: ciphertextDigest,
    size,
    annotations: { ...layer.annotations, ...annotations },
  };
}

/** Member of the configuration: SHA-256 over the digests of the encrypted layers. Who reads a configuration ignores what it does not know (OCI image-spec, config.md). */
const encryptedLayers = 'io.sealpod.encrypted-layers';
const maxConfigBytes = 4 << 20;

async function pushConfig(
  image: OpenImage,
  layers: readonly Descriptor[],
  client: RegistryClient,
  repository: string,
): Promise<Descriptor> {
  const config = asJsonObject(
    parseJson(await readWhole(image.openBlob(image.manifest.config)), {
      maxSize: maxConfigBytes,
      what: 'image configuration',
      code: 'IMG_FORMAT',
    }),
    'image configuration',
    'IMG_FORMAT',
  );
  const bytes = Buffer.from(
    JSON.stringify({ ...config, [encryptedLayers]: sha256(layers.map((layer) => layer.digest).join('\n')) }),
  );
  const digest = sha256(bytes);
  await client.uploadBlob(repository, { source: Readable.from([bytes]), digest: () => digest });
  return { mediaType: mediaTypes.ociConfig, digest, size: bytes.length };
}

async function readWhole(blob: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of blob as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxConfigBytes)
      throw new SealpodError('REQUEST_TOO_LARGE', 'an image configuration is too large', {
        expected: `at most ${maxConfigBytes} bytes`,
      });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function sha256(data: string | Buffer): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}
