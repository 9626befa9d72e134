import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createZstdDecompress } from 'node:zlib';
import { SealpodError } from '@sealpod/protocol/errors';

const zstdMagic = 0xfd2fb528;
const skippableMagic = 0x184d2a50;

/**
 * Decompresses zstd with any number of frames (RFC 8878 §3.1), as pzstd and zstd:chunked write them: Node's own stream
 * silently ends after the first one.
 *
 * @throws SealpodError IMG_FORMAT where the frames are malformed; what zlib throws where their content is
 */
export async function* decompressZstd(source: AsyncIterable<Buffer>, chunkSize: number): AsyncGenerator<Buffer> {
  const bytes = new ByteSource(source);
  try {
    for (let magic = await bytes.next(4); magic.length > 0; magic = await bytes.next(4)) {
      if (magic.length < 4) throw broken('it breaks off');
      const number = magic.readUInt32LE();
      if (number === zstdMagic) yield* decompressFrame(frameBytes(magic, bytes), chunkSize);
      else if ((number & 0xfffffff0) >>> 0 === skippableMagic) await skip(bytes);
      else throw broken('unknown frame');
    }
  } finally {
    await bytes.close();
  }
}

async function* decompressFrame(frame: AsyncIterable<Buffer>, chunkSize: number): AsyncGenerator<Buffer> {
  const decoder = createZstdDecompress({ chunkSize });
  const feeding = pipeline(Readable.from(frame), decoder);
  // Where it fails, reading the decoder fails in the same way.
  feeding.catch(() => undefined);
  yield* decoder as AsyncIterable<Buffer>;
  await feeding;
}

/** The bytes of one frame, found by its header and its blocks' headers; nothing is decoded. */
async function* frameBytes(magic: Buffer, bytes: ByteSource): AsyncGenerator<Buffer> {
  const descriptor = await bytes.exactly(1);
  const flags = descriptor.readUInt8();
  yield Buffer.concat([magic, descriptor, await bytes.exactly(frameHeaderLength(flags))]);
  for (let last = false; !last; ) {
    const header = await bytes.exactly(3);
    const value = header.readUIntLE(0, 3);
    const type = (value >> 1) & 3;
    if (type === 3) throw broken('reserved block type');
    last = (value & 1) === 1;
    yield header;
    // A block of type 1 is one byte that is repeated.
    yield* bytes.pass(type === 1 ? 1 : value >> 3);
  }
  if ((flags & 4) !== 0) yield await bytes.exactly(4);
}

/** Length of what follows the frame header descriptor: window, dictionary and content size (RFC 8878 §3.1.1.1). */
function frameHeaderLength(flags: number): number {
  const singleSegment = (flags & 0x20) !== 0;
  const dictionary = [0, 1, 2, 4][flags & 3] ?? 0;
  const contentSize = [singleSegment ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0;
  return (singleSegment ? 0 : 1) + dictionary + contentSize;
}

async function skip(bytes: ByteSource): Promise<void> {
  const length = (await bytes.exactly(4)).readUInt32LE();
  for await (const _ of bytes.pass(length));
}

/** Takes counted pieces from a stream. */
class ByteSource {
  readonly #iterator: AsyncIterator<Buffer>;
  #chunk: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.#iterator = source[Symbol.asyncIterator]();
  }

  /** The next `count` bytes, or fewer at the end. */
  async next(count: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const piece of this.#pieces(count)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** @throws SealpodError IMG_FORMAT */
  async exactly(count: number): Promise<Buffer> {
    const bytes = await this.next(count);
    if (bytes.length < count) throw broken('it breaks off');
    return bytes;
  }

  /** Exactly `count` bytes in pieces. @throws SealpodError IMG_FORMAT */
  async *pass(count: number): AsyncGenerator<Buffer> {
    let left = count;
    for await (const piece of this.#pieces(count)) {
      left -= piece.length;
      yield piece;
    }
    if (left > 0) throw broken('it breaks off');
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async *#pieces(count: number): AsyncGenerator<Buffer> {
    for (let left = count; left > 0; ) {
      if (this.#chunk.length === 0) {
        const next = await this.#iterator.next();
        if (next.done === true) return;
        this.#chunk = next.value;
        continue;
      }
      const piece = this.#chunk.subarray(0, left);
      this.#chunk = this.#chunk.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }
}

function broken(problem: string): SealpodError {
  return new SealpodError('IMG_FORMAT', `malformed zstd layer: ${problem}`);
}
