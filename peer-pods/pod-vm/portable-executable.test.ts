import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { appendSections, authenticodeDigest, dropSections, readSections } from './portable-executable.ts';
import { joinUnifiedKernelImage, splitUnifiedKernelImage, stubOf } from './unified-kernel-image.ts';

/** A PE32+ program with one section, as small as the format allows. */
function program(content: Buffer): Buffer {
  const headers = 1024;
  const bytes = Buffer.alloc(headers + 512);
  bytes.write('MZ', 0, 'latin1');
  bytes.writeUInt32LE(0x80, 0x3c);
  bytes.write('PE\0\0', 0x80, 'latin1');
  bytes.writeUInt16LE(0x8664, 0x84);
  bytes.writeUInt16LE(1, 0x86);
  bytes.writeUInt16LE(240, 0x94);
  const optional = 0x98;
  bytes.writeUInt16LE(0x20b, optional);
  bytes.writeUInt32LE(4096, optional + 32);
  bytes.writeUInt32LE(512, optional + 36);
  bytes.writeUInt32LE(8192, optional + 56);
  bytes.writeUInt32LE(headers, optional + 60);
  bytes.writeUInt32LE(16, optional + 108);
  const section = optional + 240;
  bytes.write('.text', section, 'latin1');
  bytes.writeUInt32LE(content.length, section + 8);
  bytes.writeUInt32LE(4096, section + 12);
  bytes.writeUInt32LE(512, section + 16);
  bytes.writeUInt32LE(headers, section + 20);
  content.copy(bytes, headers);
  return bytes;
}

const stub = program(Buffer.from('code'));

describe('sections', () => {
  it('come back as they were added, whatever is in them, and can be removed again', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 9000 }), { minLength: 1, maxLength: 5 }),
        (contents) => {
          const added = contents.map((content, index) => ({ name: `.s${index}`, content: Buffer.from(content) }));
          const joined = appendSections(stub, added);
          expect(readSections(joined).slice(1)).toEqual(added);
          const dropped = dropSections(
            joined,
            added.map((section) => section.name),
          );
          expect(readSections(dropped)).toEqual(readSections(stub));
          expect(appendSections(dropped, added)).toEqual(joined);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('do not overlap in memory or file', () => {
    const joined = appendSections(stub, [
      { name: '.a', content: Buffer.alloc(5000, 1) },
      { name: '.b', content: Buffer.alloc(1, 2) },
    ]);
    const table = 0x98 + 240;
    const [first, second] = [table + 40, table + 80];
    expect(joined.readUInt32LE(second + 12)).toBe(joined.readUInt32LE(first + 12) + 8192);
    expect(joined.readUInt32LE(second + 20)).toBe(joined.readUInt32LE(first + 20) + 5120);
    expect(joined.readUInt32LE(0x98 + 56)).toBe(joined.readUInt32LE(second + 12) + 4096);
  });

  it('are refused where the header has no room', () => {
    const many = Array.from({ length: 40 }, (_, index) => ({ name: `.${index}`, content: Buffer.from('x') }));
    expect(() => appendSections(stub, many)).toThrow(/no room/);
  });

  it.each([Buffer.alloc(0), Buffer.from('MZ'), Buffer.alloc(4096), stub.subarray(0, 0x90)])(
    'are not read from %#',
    (bytes) => {
      expect(() => readSections(Buffer.from(bytes))).toThrow(/not a PE32\+ program/);
    },
  );
});

describe('authenticodeDigest', () => {
  const digest = (bytes: Buffer): string => authenticodeDigest(bytes).toString('hex');

  it('leaves out checksum and certificate entry, and nothing else', () => {
    const optional = 0x98;
    const skipped = [...range(optional + 64, 4), ...range(optional + 112 + 32, 8)];
    for (let at = 2; at < stub.length; at += 1) {
      // Fields by which the hashed ranges are found are covered by the next test.
      if (at < 0x40 + 4 && at >= 0x3c) continue;
      if ((at >= 0x80 && at < optional + 112) || (at >= optional + 240 && at < optional + 280)) continue;
      const changed = Buffer.from(stub);
      changed[at] = (changed[at] ?? 0) ^ 0x01;
      if (skipped.includes(at)) continue;
      expect(digest(changed) === digest(stub), `byte ${at}`).toBe(false);
    }
    const changed = Buffer.from(stub);
    changed.writeUInt32LE(0x12345678, optional + 64);
    expect(digest(changed)).toBe(digest(stub));
  });

  it('covers headers and sections in file order', () => {
    const optional = 0x98;
    const parts = [
      stub.subarray(0, optional + 64),
      stub.subarray(optional + 68, optional + 144),
      stub.subarray(optional + 152),
    ];
    expect(digest(stub)).toBe(createHash('sha256').update(Buffer.concat(parts)).digest('hex'));
  });
});

describe('unified kernel image', () => {
  it('is taken apart into what it was joined from', () => {
    const parts = {
      linux: Buffer.from('kernel'),
      initrd: Buffer.from('archive'),
      commandLine: 'quiet roothash=00',
    };
    const joined = joinUnifiedKernelImage(stub, parts);
    expect(splitUnifiedKernelImage(joined)).toEqual(parts);
    expect(joinUnifiedKernelImage(stubOf(joined), parts)).toEqual(joined);
  });
});

function range(start: number, length: number): number[] {
  return Array.from({ length }, (_, index) => start + index);
}
