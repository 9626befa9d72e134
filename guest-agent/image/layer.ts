import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { PassThrough, type Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { LayerMediaType } from '@sealpod/protocol/ocicrypt';
import { requireDigest } from '@sealpod/registry';
import { TarReader } from './tar/reader.ts';
import {
  type LayerChanges,
  LayerUnpacker,
  SpecialFiles,
  type SpecialFileTools,
  type UnpackBudget,
} from './unpack/index.ts';
import { decompressZstd } from './zstd-frames.ts';

/** Output of decompressors; large, because each piece costs a round trip to the thread pool. */
const decompressedChunkBytes = 256 * 1024;

export interface LayerUnpackOptions {
  /** The layer's bytes; the stream fails at its end where they have not the digest they were asked for by. */
  readonly blob: Readable;
  /** For an encrypted layer; fails at its end where the bytes do not authenticate. */
  readonly decryptor: Transform | undefined;
  readonly compression: LayerMediaType['compression'];
  /** `sha256:<hex>` of the archive, from the image configuration. */
  readonly diffId: string;
  /** Empty directory in quarantine: its content is worth nothing until this function has returned. */
  readonly directory: string;
  readonly budget: UnpackBudget;
  readonly tools: SpecialFileTools;
  readonly notice: (text: string) => void;
}

/**
 * Unpacks one layer in one pass and in constant memory: blob → digest → decrypt and HMAC → decompress → diff id → tar →
 * files. It returns only when all of these are right. A layer that is not authentic is reported as such even where it
 * also fails to decompress or unpack: the rest is read for the verdict.
 *
 * @throws SealpodError IMG_DIGEST, IMG_DECRYPT_KEY, IMG_FORMAT, IMG_UNPACK, IMG_REGISTRY
 */
export async function unpackLayer(options: LayerUnpackOptions): Promise<LayerChanges> {
  const archive = unpackArchive(options);
  try {
    for await (const chunk of authentic(options)) await archive.write(chunk);
    return await archive.finish();
  } catch (error) {
    archive.abandon();
    throw error;
  }
}

/** The bytes that are checked when the last of them has been read. */
function authentic({ blob, decryptor }: LayerUnpackOptions): AsyncIterable<Buffer> {
  if (decryptor === undefined) return blob as AsyncIterable<Buffer>;
  // Where the blob fails, reading the decryptor fails in the same way.
  pipeline(blob, decryptor).catch(() => undefined);
  return decryptor as AsyncIterable<Buffer>;
}

interface ArchiveSink {
  /** Takes compressed bytes; after a failure they are ignored. */
  write(chunk: Buffer): Promise<void>;
  /** @throws what went wrong at any time */
  finish(): Promise<LayerChanges>;
  abandon(): void;
}

function unpackArchive(options: LayerUnpackOptions): ArchiveSink {
  const { stream, output } = decompressor(options.compression);
  // Failures are seen by reading `output`; one that comes after that is of no interest and must not end the process.
  stream.on('error', () => undefined);
  const unpacker = new LayerUnpacker(
    options.directory,
    options.budget,
    new SpecialFiles(options.tools, options.notice),
  );
  const reader = new TarReader(unpacker);
  const diffId = createHash('sha256');
  let failure: SealpodError | undefined;
  const unpacking = (async () => {
    try {
      for await (const chunk of output) {
        diffId.update(chunk);
        reader.write(chunk);
      }
      requireDigest(diffId, options.diffId, 'uncompressed layer');
      reader.end();
    } catch (error) {
      failure = archiveFailure(error);
      stream.destroy();
    }
  })();
  return {
    async write(chunk) {
      if (failure === undefined && !stream.write(chunk))
        await Promise.race([once(stream, 'drain').catch(() => undefined), unpacking]);
    },
    async finish() {
      if (failure === undefined) stream.end();
      await unpacking;
      if (failure !== undefined) throw failure;
      return unpacker.finish();
    },
    abandon() {
      stream.destroy();
      unpacker.abandon();
    },
  };
}

function decompressor(compression: LayerMediaType['compression']): {
  readonly stream: Transform;
  readonly output: AsyncIterable<Buffer>;
} {
  if (compression === 'gzip') {
    const stream = createGunzip({ chunkSize: decompressedChunkBytes });
    return { stream, output: stream };
  }
  const stream = new PassThrough();
  return { stream, output: compression === 'zstd' ? decompressZstd(stream, decompressedChunkBytes) : stream };
}

function archiveFailure(error: unknown): SealpodError {
  if (error instanceof SealpodError) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  // zlib's codes begin so; everything else comes from the file system.
  const isCompression = code.startsWith('Z_') || code.startsWith('ZSTD_') || code === 'ERR_STREAM_PREMATURE_CLOSE';
  return asSealpodError(error, isCompression ? 'IMG_FORMAT' : 'IMG_UNPACK');
}
