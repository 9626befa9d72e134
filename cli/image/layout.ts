import { createReadStream } from 'node:fs';
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Descriptor, hashFor, mediaTypes, parseManifest, requireDigest, sha256Digest } from '@sealpod/registry';

const tagAnnotation = 'org.opencontainers.image.ref.name';

/** Path of a blob in an OCI image layout (OCI image-spec, image-layout.md). */
export function blobPath(directory: string, digest: string): string {
  hashFor(digest);
  return join(directory, 'blobs', ...digest.split(':'));
}

/** A blob as a stream that fails at its end where the bytes have not the digest. */
export function openBlobFile(directory: string, blob: { readonly digest: string }): Readable {
  const hash = hashFor(blob.digest);
  const file = createReadStream(blobPath(directory, blob.digest), { highWaterMark: 256 * 1024 });
  return Readable.from(
    (async function* () {
      for await (const chunk of file as AsyncIterable<Buffer>) {
        hash.update(chunk);
        yield chunk;
      }
      requireDigest(hash, blob.digest, 'blob');
    })(),
  );
}

/**
 * The descriptor of an image in a layout: the one with the tag, or the only one.
 *
 * @throws SealpodError NOT_FOUND, IMG_FORMAT
 */
export async function findInLayout(directory: string, tag: string | undefined): Promise<Descriptor> {
  let bytes: Buffer;
  try {
    bytes = await readFile(join(directory, 'index.json'));
  } catch (cause) {
    throw new SealpodError('NOT_FOUND', `${directory} is no OCI image layout`, { cause });
  }
  const index = parseManifest(bytes, withoutMediaType(bytes) ? mediaTypes.ociIndex : undefined);
  if (index.kind !== 'index') throw new SealpodError('IMG_FORMAT', `${directory}/index.json is no image index`);
  const candidates = index.manifests.filter((entry) => tag === undefined || entry.annotations?.[tagAnnotation] === tag);
  const [found, ...more] = candidates;
  if (found === undefined || more.length > 0) {
    const tags = index.manifests.map((entry) => entry.annotations?.[tagAnnotation] ?? '(no tag)');
    throw new SealpodError('NOT_FOUND', `${directory} holds ${candidates.length} images of this name`, {
      expected: tag === undefined ? 'exactly one image' : `tag ${tag}`,
      actual: tags.join(', '),
    });
  }
  return found;
}

/** Reads a small blob and checks its digest. @throws SealpodError */
export async function readBlobFile(
  directory: string,
  blob: { readonly digest: string },
  limit: number,
): Promise<Buffer> {
  const path = blobPath(directory, blob.digest);
  const { size } = await stat(path);
  if (size > limit)
    throw new SealpodError('IMG_FORMAT', `blob ${blob.digest} is too large`, { expected: `at most ${limit} bytes` });
  const bytes = await readFile(path);
  requireDigest(hashFor(blob.digest).update(bytes), blob.digest, 'blob');
  return bytes;
}

/** Adds a blob and returns its digest. */
export async function writeBlobFile(directory: string, bytes: Uint8Array): Promise<string> {
  const digest = sha256Digest(bytes);
  await mkdir(join(directory, 'blobs', 'sha256'), { recursive: true });
  await writeFile(`${blobPath(directory, digest)}.part`, bytes);
  await rename(`${blobPath(directory, digest)}.part`, blobPath(directory, digest));
  return digest;
}

/** Writes `oci-layout` and an index with one image. */
export async function writeLayoutIndex(directory: string, manifest: Descriptor, tag: string): Promise<void> {
  await writeFile(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const index = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: [{ ...manifest, annotations: { [tagAnnotation]: tag } }],
  };
  await writeFile(join(directory, 'index.json'), JSON.stringify(index));
}

/** The media type of a layout's index is optional, and its file name says what it is. */
function withoutMediaType(bytes: Buffer): boolean {
  return !bytes.includes('"mediaType":"application/vnd.oci.image.index');
}
