import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import {
  createLayerEncryptor,
  encodeAnnotationPacket,
  encodePrivateLayerOptions,
  formatLayerMediaType,
  wrapPrivateOptions,
  writeEncryptionAnnotations,
} from '@sealpod/protocol/ocicrypt';
import { type Descriptor, hostPlatform, mediaTypes, RegistryClient } from '@sealpod/registry';
import { type Header, pack } from 'tar-stream';

/** Images for tests and benchmarks, made here and pushed to a registry of the test's own. */

/** An entry of a test archive; names and links may be as hostile as they like. */
export type TestEntry = Partial<Header> & { readonly name: string; readonly content?: string | Buffer };

/** A tar archive of the entries, in their order. */
export async function tarOf(entries: readonly TestEntry[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...header } of entries) {
    const data = content === undefined ? undefined : Buffer.from(content);
    archive.entry({ mtime: new Date(1_600_000_000_000), mode: 0o644, ...header }, data ?? '');
  }
  archive.finalize();
  return buffer(archive);
}

/** A layer to push. */
export interface TestLayer {
  readonly archive: Buffer;
  readonly compression?: 'none' | 'gzip' | 'zstd';
  /** Given, the layer is encrypted. */
  readonly key?: { readonly id: string; readonly bytes: Uint8Array };
  /** Overrides the true diff id. */
  readonly diffId?: string;
  /** Changes the descriptor that goes into the manifest. */
  readonly alter?: (descriptor: Descriptor) => Descriptor;
  /** Already compressed bytes of `archive`. */
  readonly compressed?: Buffer;
}

/** Pushes an image and returns the digest of its manifest. */
export async function pushTestImage(
  host: string,
  repository: string,
  tag: string,
  layers: readonly TestLayer[],
): Promise<string> {
  const client = new RegistryClient({ registry: host, plainHttpHosts: new Set([host]) });
  const put = async (bytes: Buffer): Promise<string> =>
    client.uploadBlob(repository, { source: Readable.from([bytes]), digest: () => sha256(bytes) });
  try {
    const descriptors: Descriptor[] = [];
    for (const layer of layers) {
      const { bytes, descriptor } = await layerBlob(layer);
      await put(bytes);
      descriptors.push(layer.alter?.(descriptor) ?? descriptor);
    }
    const diffIds = layers.map((layer) => layer.diffId ?? sha256(layer.archive));
    const config = Buffer.from(
      JSON.stringify({
        ...hostPlatform(),
        config: { Env: ['PATH=/bin'], Cmd: ['/bin/true'] },
        rootfs: { type: 'layers', diff_ids: diffIds },
        // Makes each configuration, and so each manifest, a new one.
        author: randomBytes(8).toString('hex'),
      }),
    );
    const manifest = {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: { mediaType: mediaTypes.ociConfig, digest: await put(config), size: config.length },
      layers: descriptors,
    };
    const bytes = Buffer.from(JSON.stringify(manifest));
    return await client.putManifest(repository, tag, { mediaType: mediaTypes.ociManifest, bytes });
  } finally {
    client.close();
  }
}

async function layerBlob(layer: TestLayer): Promise<{ readonly bytes: Buffer; readonly descriptor: Descriptor }> {
  const compression = layer.compression ?? 'gzip';
  const plain = layer.compressed ?? compress(layer.archive, compression);
  const { key } = layer;
  const type = { compression, nondistributable: false };
  if (key === undefined) {
    const mediaType = formatLayerMediaType({ ...type, encrypted: false });
    return { bytes: plain, descriptor: { mediaType, digest: sha256(plain), size: plain.length } };
  }
  const encryptor = createLayerEncryptor();
  const bytes = await buffer(Readable.from([plain]).compose(encryptor.stream));
  const { privateOptions, publicOptions, ciphertextDigest, size } = encryptor.result();
  const wrapped = wrapPrivateOptions(encodePrivateLayerOptions(privateOptions), key.bytes);
  const descriptor = {
    mediaType: formatLayerMediaType({ ...type, encrypted: true }),
    digest: ciphertextDigest,
    size,
    annotations: writeEncryptionAnnotations(publicOptions, encodeAnnotationPacket({ keyId: key.id, ...wrapped })),
  };
  return { bytes, descriptor };
}

function compress(bytes: Buffer, compression: 'none' | 'gzip' | 'zstd'): Buffer {
  if (compression === 'none') return bytes;
  return compression === 'gzip' ? gzipSync(bytes) : zstdCompressSync(bytes);
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
