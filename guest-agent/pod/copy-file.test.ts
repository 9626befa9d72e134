import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { copyFile } from './copy-file.ts';
import type { FileCopy } from './unsealing.ts';

let base: string;
let root: string;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'sealpod-copy-'));
  root = join(base, 'shared');
  mkdirSync(root);
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

function copy(path: string, fields: Partial<FileCopy> = {}): FileCopy {
  const data = fields.data ?? Buffer.from('content');
  return {
    path,
    fileMode: 0o100640,
    dirMode: 0o750,
    offset: 0n,
    fileSize: BigInt(data.length),
    data,
    ...owner,
    ...fields,
  };
}

describe('CopyFile', () => {
  it('writes a file in chunks and shows it when it is complete', async () => {
    const path = join(root, 'a/b/file');
    await copyFile(root, copy(path, { data: Buffer.from('con'), fileSize: 7n }));
    expect(readdirSync(join(root, 'a/b'))).toEqual(['.file.tmp']);
    await copyFile(root, copy(path, { data: Buffer.from('tent'), offset: 3n, fileSize: 7n }));
    expect(readdirSync(join(root, 'a/b'))).toEqual(['file']);
    expect(readFileSync(path, 'utf8')).toBe('content');
    expect(statSync(path).mode & 0o7777).toBe(0o640);
    expect(statSync(join(root, 'a/b')).mode & 0o7777).toBe(0o750);
    await copyFile(root, copy(path, { data: Buffer.from('x'), fileMode: 0o100600 }));
    expect(readFileSync(path, 'utf8')).toBe('x');
  });

  it('makes folders and links, and replaces a link in one step', async () => {
    await copyFile(root, copy(join(root, 'v1'), { fileMode: 0o040711, data: new Uint8Array() }));
    expect(statSync(join(root, 'v1')).mode & 0o7777).toBe(0o711);
    for (const target of ['v1', 'v2']) {
      await copyFile(root, copy(join(root, '..data'), { fileMode: 0o120777, data: Buffer.from(target) }));
      expect(readlinkSync(join(root, '..data'))).toBe(target);
    }
  });

  it.each([
    ['', {}],
    ['/etc/passwd', {}],
    ['ROOT', {}],
    ['ROOT/', {}],
    ['ROOT/../x', {}],
    ['ROOT/a/../../x', {}],
    ['ROOT//x', {}],
    ['ROOT/./x', {}],
    ['ROOTx/y', {}],
    ['ROOT/\0', {}],
    ['ROOT/x', { fileMode: 0o060600 }],
    ['ROOT/x', { fileMode: 0o010600 }],
    ['ROOT/x', { offset: -1n }],
    ['ROOT/x', { fileSize: 3n }],
    ['ROOT/x', { fileSize: 1n << 40n }],
    ['ROOT/x', { fileMode: 0o120777, data: new Uint8Array() }],
  ])('refuses %j %o and leaves nothing', async (path, fields) => {
    await expect(copyFile(root, copy(path.replace('ROOT', root), fields))).rejects.toThrow();
    expect(readdirSync(base)).toEqual(['shared']);
    expect(readdirSync(root)).toEqual([]);
  });

  it('never writes through a link, in a parent, at the end or beside', async () => {
    const outside = join(base, 'outside');
    mkdirSync(outside);
    symlinkSync(outside, join(root, 'link'));
    symlinkSync(join(outside, 'made'), join(root, '.file.tmp'));
    await expect(copyFile(root, copy(join(root, 'link/x')))).rejects.toThrow(/not a folder/);
    await expect(copyFile(root, copy(join(root, 'link/deep/x')))).rejects.toThrow(/not a folder/);
    await expect(copyFile(root, copy(join(root, 'file')))).rejects.toThrow();
    await expect(copyFile(root, copy(join(root, 'link'), { fileMode: 0o040777 }))).rejects.toThrow(/not a folder/);
    expect(readdirSync(outside)).toEqual([]);
    await copyFile(root, copy(join(root, 'link')));
    expect(lstatSync(join(root, 'link')).isFile()).toBe(true);
  });

  it('stays inside whatever the requests are', async () => {
    const segment = fc.constantFrom('a', 'b', '..', '.', '', 'link', '.a.tmp', 'c\0d');
    const request = fc.record({
      segments: fc.array(segment, { minLength: 1, maxLength: 4 }),
      fileMode: fc.constantFrom(0o100644, 0o040755, 0o120777),
      data: fc.constantFrom('x', '/', '..', '../..', '/tmp', 'a'),
    });
    const canary = join(base, 'canary');
    mkdirSync(canary);
    await fc.assert(
      fc.asyncProperty(fc.array(request, { minLength: 1, maxLength: 8 }), async (requests) => {
        rmSync(root, { recursive: true });
        mkdirSync(root);
        symlinkSync(canary, join(root, 'link'));
        for (const { segments, fileMode, data } of requests) {
          await copyFile(root, copy(`${root}/${segments.join('/')}`, { fileMode, data: Buffer.from(data) })).catch(
            () => undefined,
          );
        }
        expect(readdirSync(base).sort()).toEqual(['canary', 'shared']);
        expect(readdirSync(canary)).toEqual([]);
      }),
      { numRuns: 150 },
    );
  });
});
