import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tarOf } from '../testing/test-image.ts';
import type { TarEntry } from './header.ts';
import { TarReader } from './reader.ts';

interface Read {
  readonly entry: TarEntry;
  readonly content: Buffer;
}

function read(archive: Buffer, size = archive.length): Read[] {
  const entries: { entry: TarEntry; content: Buffer }[] = [];
  const reader = new TarReader({
    entry: (entry) => entries.push({ entry, content: Buffer.alloc(entry.size) }),
    data: (chunk, position) => chunk.copy(entries.at(-1)?.content ?? Buffer.alloc(0), position),
    end: () => undefined,
  });
  for (let at = 0; at < archive.length; at += size) reader.write(archive.subarray(at, at + size));
  reader.end();
  return entries;
}

let directory: string;
const long = `${'d'.repeat(90)}/${'e'.repeat(90)}/${'f'.repeat(90)}`;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-tar-'));
  mkdirSync(join(directory, 'tree', ...long.split('/')), { recursive: true });
  const path = (name: string) => join(directory, 'tree', name);
  writeFileSync(path('small'), 'small');
  writeFileSync(path('empty'), '');
  writeFileSync(path('big'), randomBytes(100_000));
  writeFileSync(path(`${long}/file`), 'deep');
  writeFileSync(Buffer.concat([Buffer.from(path('latin-')), Buffer.from([0xe9])]), 'no utf-8');
  symlinkSync('s'.repeat(200), path('link'));
  linkSync(path('small'), path('hard'));
  const sparse = openSync(path('sparse'), 'w');
  for (const at of [0, 300_000, 1_000_000]) writeSync(sparse, Buffer.from(`data at ${at}`), 0, undefined, at);
  ftruncateSync(sparse, 2_000_000);
  closeSync(sparse);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const formats: [string, string[]][] = [
  ['gnu', ['--format=gnu']],
  ['gnu sparse', ['--format=gnu', '--sparse']],
  ['pax', ['--format=pax']],
  ['pax sparse 0.0', ['--format=pax', '--sparse', '--sparse-version=0.0']],
  ['pax sparse 0.1', ['--format=pax', '--sparse', '--sparse-version=0.1']],
  ['pax sparse 1.0', ['--format=pax', '--sparse', '--sparse-version=1.0']],
];

describe('TarReader against GNU tar', () => {
  it.each(formats)('reads format %s in pieces of any size', (_name, options) => {
    const archive = execFileSync('tar', [...options, '-C', join(directory, 'tree'), '-cf', '-', '.'], {
      maxBuffer: 1 << 27,
    });
    const entries = new Map(read(archive).map((each) => [each.entry.path.replace(/^\.\/|\/$/g, ''), each]));
    for (const name of ['small', 'empty', 'big', 'sparse', `${long}/file`]) {
      const either = entries.get(name);
      const entry = either?.entry.type === 'hardlink' ? entries.get(either.entry.linkTarget.replace('./', '')) : either;
      expect(entry?.content.equals(readFileSync(join(directory, 'tree', name))), name).toBe(true);
    }
    expect(entries.get('link')?.entry).toMatchObject({ type: 'symlink', linkTarget: 's'.repeat(200) });
    expect([entries.get('hard'), entries.get('small')].some((each) => each?.entry.type === 'hardlink')).toBe(true);
    expect(entries.get('latin-\xe9')?.content.toString()).toBe('no utf-8');
    expect(entries.get(long.split('/')[0] ?? '')?.entry.type).toBe('directory');
    const whole = digestOf(read(archive));
    for (const size of [1 << 16, 10_240, 511, 513, 4099]) expect(digestOf(read(archive, size))).toBe(whole);
  });

  it('fails wherever an archive breaks off inside an entry', () => {
    const archive = execFileSync('tar', ['-C', join(directory, 'tree'), '-cf', '-', 'small', 'big']);
    for (const at of [1, 511, 513, 515, 1023, 1025, 50_000]) {
      expect(() => read(archive.subarray(0, at))).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
    }
  });
});

function digestOf(entries: readonly Read[]): string {
  const hash = createHash('sha256');
  for (const { entry, content } of entries) hash.update(JSON.stringify(entry)).update(content);
  return hash.digest('hex');
}

describe('TarReader on hostile archives', () => {
  it('throws IMG_FORMAT or reads, whatever byte of the headers is changed', async () => {
    const archive = await tarOf([
      { name: 'a'.repeat(150), content: 'x' },
      { name: 'b', type: 'symlink', linkname: 'c' },
      { name: 'd', content: Buffer.alloc(600), pax: { 'SCHILY.xattr.user.a': 'b' } },
    ]);
    fc.assert(
      fc.property(fc.nat(archive.length - 1), fc.nat(255), fc.boolean(), (at, value, fixChecksum) => {
        const changed = Buffer.from(archive);
        changed.writeUInt8(value, at);
        if (fixChecksum) writeChecksum(changed, at - (at % 512));
        try {
          read(changed);
        } catch (error) {
          expect(error).toMatchObject({ code: 'IMG_FORMAT' });
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('reads no random bytes as an archive', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 512, maxLength: 2048 }), (bytes) => {
        fc.pre(bytes.some((byte) => byte !== 0));
        try {
          read(Buffer.from(bytes));
        } catch (error) {
          expect(error).toMatchObject({ code: 'IMG_FORMAT' });
        }
      }),
    );
  });

  it('keeps extended attributes and ignores global headers', async () => {
    const archive = await tarOf([{ name: 'd', content: 'x', pax: { 'SCHILY.xattr.user.a': 'b' } }]);
    const [only] = read(archive);
    expect(only?.entry.xattrs.get('user.a')?.toString()).toBe('b');
  });

  it('refuses an extended header that is too large', () => {
    const header = Buffer.alloc(512);
    header.write('name', 0);
    header.write('77777777777', 124);
    header.write('x', 156);
    header.write('ustar\x0000', 257);
    writeChecksum(header, 0);
    expect(() => read(header)).toThrow('extended header is too large');
  });
});

function writeChecksum(archive: Buffer, start: number): void {
  if (start + 512 > archive.length) return;
  archive.fill(0x20, start + 148, start + 156);
  let sum = 0;
  for (const byte of archive.subarray(start, start + 512)) sum += byte;
  archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, start + 148, 'latin1');
}
