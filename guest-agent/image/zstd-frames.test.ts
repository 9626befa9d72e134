import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { constants, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decompressZstd } from './zstd-frames.ts';

const skippable = (length: number) => {
  const frame = Buffer.alloc(8 + length, 0xee);
  frame.writeUInt32LE(0x184d2a53);
  frame.writeUInt32LE(length, 4);
  return frame;
};
const withChecksum = { params: { [constants.ZSTD_c_checksumFlag]: 1 } };
const decompress = (pieces: readonly Buffer[]) => buffer(decompressZstd(Readable.from(pieces), 4096));

function split(bytes: Buffer, size: number): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
}

describe('decompressZstd', () => {
  it('reads any frames in any pieces', async () => {
    const content = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      fc.integer({ min: 0, max: 400_000 }).map((length) => Buffer.alloc(length, 'ab')),
      fc.constant(randomBytes(150_000)),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(content, { maxLength: 4 }),
        fc.integer({ min: 1, max: 70_000 }),
        async (contents, size) => {
          const frames = contents.flatMap((bytes, at) => [
            zstdCompressSync(bytes, at % 2 === 0 ? {} : withChecksum),
            skippable(at * 5),
          ]);
          const stream = Buffer.concat(frames);
          expect(await decompress(split(stream, Math.max(size, Math.ceil(stream.length / 2000))))).toEqual(
            Buffer.concat(contents),
          );
        },
      ),
      { numRuns: 40 },
    );
  });

  it('fails wherever the stream breaks off, except between frames', async () => {
    const frames = [
      zstdCompressSync(randomBytes(500), withChecksum),
      skippable(3),
      zstdCompressSync(Buffer.from('end')),
    ];
    const stream = Buffer.concat(frames);
    const ends = new Set([0, frames[0]?.length ?? 0, (frames[0]?.length ?? 0) + 11, stream.length]);
    for (let at = 0; at <= stream.length; at++) {
      const outcome = decompress([stream.subarray(0, at)]);
      if (ends.has(at)) await expect(outcome).resolves.toBeDefined();
      else await expect(outcome).rejects.toThrow();
    }
  });

  it.each([
    Buffer.from('not zstd at all'),
    Buffer.concat([zstdCompressSync(Buffer.from('a')), Buffer.from('garbage')]),
  ])('refuses garbage', async (bytes) => {
    await expect(decompress([bytes])).rejects.toMatchObject({ code: 'IMG_FORMAT' });
  });
});
