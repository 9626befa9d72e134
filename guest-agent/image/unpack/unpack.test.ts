import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TarReader } from '../tar/reader.ts';
import { type TestEntry, tarOf } from '../testing/test-image.ts';
import { describeTree } from '../testing/tree.ts';
import {
  createRootfs,
  LayerUnpacker,
  mergeLayer,
  SpecialFiles,
  type SpecialFileTools,
  UnpackBudget,
  type UnpackLimits,
} from './index.ts';

const needsRoot = process.getuid?.() === 0 ? undefined : 'unpacking with owners needs root';
const limits: UnpackLimits = { maxEntries: 1000, maxBytes: 1_000_000 };

let directory: string;
let rootfs: string;
let notices: string[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-unpack-'));
  rootfs = join(directory, 'rootfs');
  createRootfs(rootfs);
  // What a hostile layer would like to reach.
  mkdirSync(join(directory, 'outside'));
  writeFileSync(join(directory, 'outside', 'victim'), 'untouched');
  notices = [];
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function unpack(entries: readonly TestEntry[], tools: SpecialFileTools = {}): Promise<void> {
  const layer = join(directory, 'layer');
  createRootfs(layer);
  const notice = (text: string): void => void notices.push(text);
  const unpacker = new LayerUnpacker(layer, new UnpackBudget(limits), new SpecialFiles(tools, notice));
  try {
    const reader = new TarReader(unpacker);
    reader.write(await tarOf(entries));
    reader.end();
    mergeLayer(rootfs, layer, unpacker.finish());
  } finally {
    unpacker.abandon();
    rmSync(layer, { recursive: true, force: true });
  }
}

const text = (path: string) => readFileSync(join(rootfs, path), 'utf8');
const refused = { code: 'IMG_UNPACK' };

/** Everything in the test's directory but the root file system itself. */
function outside(): string {
  const { rootfs: _, ...rest } = Object.fromEntries(
    Object.entries(describeTree(directory)).map(([path, line]) => [path.startsWith('rootfs/') ? 'rootfs' : path, line]),
  );
  delete rest[''];
  return JSON.stringify(rest);
}

describe.skipIf(needsRoot !== undefined)(`layers${needsRoot === undefined ? '' : ` (${needsRoot})`}`, () => {
  it.each([
    ['..', [{ name: '../outside/victim', content: 'x' }]],
    ['.. inside', [{ name: 'a/../../outside/victim', content: 'x' }]],
    ['a hard link to ..', [{ name: 'a', type: 'link', linkname: '../outside/victim' }]],
    [
      'a hard link to a directory',
      [
        { name: 'd/', type: 'directory' },
        { name: 'a', type: 'link', linkname: 'd' },
      ],
    ],
    ['a hard link to nothing', [{ name: 'a', type: 'link', linkname: 'nothing' }]],
    ['a hard link to itself', [{ name: 'a', type: 'link', linkname: 'a' }]],
    [
      'a file as directory',
      [
        { name: 'a', content: '' },
        { name: 'a/b', content: '' },
      ],
    ],
    ['the root as a file', [{ name: './', type: 'symlink', linkname: '/' }]],
    [
      'links in a circle',
      [
        { name: 'a', type: 'symlink', linkname: 'b' },
        { name: 'b', type: 'symlink', linkname: 'a' },
        { name: 'a/c', content: '' },
      ],
    ],
    ['a whiteout of ..', [{ name: '.wh...', content: '' }]],
    ['a whiteout of nothing', [{ name: 'd/.wh.', content: '' }]],
    ['a name that is too long', [{ name: 'n'.repeat(256), content: '' }]],
    ['a path that is too long', [{ name: 'd/'.repeat(2100), type: 'directory' }]],
  ] as [string, TestEntry[]][])('refuses %s', async (_name, entries) => {
    const before = outside();
    await expect(unpack(entries)).rejects.toMatchObject(refused);
    expect(outside()).toBe(before);
  });

  it('follows links inside the root only', async () => {
    const before = outside();
    await unpack([
      { name: 'absolute', type: 'symlink', linkname: join(directory, 'outside') },
      { name: 'absolute/victim', content: 'inside' },
      { name: 'relative', type: 'symlink', linkname: '../../../../../../outside' },
      { name: 'relative/other', content: 'inside' },
      { name: '/leading/slash', content: 'inside' },
    ]);
    expect(outside()).toBe(before);
    expect(readFileSync(join(rootfs, directory, 'outside', 'victim'), 'utf8')).toBe('inside');
    expect(text('outside/other')).toBe('inside');
    expect(text('leading/slash')).toBe('inside');
    expect(readlinkSync(join(rootfs, 'absolute'))).toBe(join(directory, 'outside'));
  });

  it('replaces a link and does not write through it', async () => {
    await unpack([
      { name: 'target', content: 'kept' },
      { name: 'link', type: 'symlink', linkname: 'target' },
    ]);
    await unpack([{ name: 'link', content: 'new' }]);
    expect([text('target'), text('link')]).toEqual(['kept', 'new']);
    await unpack([
      { name: 'x', type: 'symlink', linkname: join(directory, 'outside', 'victim') },
      { name: 'x', content: 'new' },
    ]);
    expect(readFileSync(join(directory, 'outside', 'victim'), 'utf8')).toBe('untouched');
    expect(text('x')).toBe('new');
  });

  it('never touches anything outside, whatever a layer holds', async () => {
    const name = fc.constantFrom(
      'a',
      'b',
      'c',
      '..',
      '.',
      '',
      'outside',
      'victim',
      '.wh.a',
      '.wh.b',
      '.wh..wh..opq',
      '.wh.victim',
    );
    const path = fc.array(name, { minLength: 1, maxLength: 5 }).map((names) => names.join('/'));
    const target = fc.oneof(
      path,
      fc.constantFrom('/', '..', '../outside', '../../outside/victim', '/a', '/../outside'),
    );
    const entry: fc.Arbitrary<TestEntry> = fc
      .record({
        name: fc.oneof(
          path,
          path.map((each) => `/${each}`),
        ),
        type: fc.constantFrom('file', 'directory', 'symlink', 'symlink', 'link'),
        linkname: target,
        content: fc.constant('hostile'),
      })
      .map(({ content, type, ...rest }) => (type === 'file' ? { ...rest, type, content } : { ...rest, type }));
    const before = outside();
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(entry, { maxLength: 8 }), { maxLength: 3 }), async (layers) => {
        rmSync(rootfs, { recursive: true, force: true });
        createRootfs(rootfs);
        for (const entries of layers) {
          try {
            await unpack(entries.filter((each) => each.name !== ''));
          } catch (error) {
            // tar-stream itself refuses some names; what gets past it is refused by code.
            if (error instanceof SealpodError) expect(['IMG_UNPACK', 'IMG_FORMAT']).toContain(error.code);
            else expect(String((error as NodeJS.ErrnoException).code)).toMatch(/^E/);
          }
          expect(outside()).toBe(before);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('deletes by whiteout in the layers below only', async () => {
    await unpack([
      { name: 'd/', type: 'directory' },
      { name: 'd/old', content: 'old' },
      { name: 'd/other', content: 'other' },
      { name: 'e/', type: 'directory' },
      { name: 'e/old', content: 'old' },
    ]);
    await unpack([
      { name: 'd/new', content: 'new' },
      { name: 'd/.wh.old', content: '' },
      { name: 'd/.wh.new', content: '' },
      { name: 'e/new', content: 'new' },
      { name: 'e/.wh..wh..opq', content: '' },
      { name: 'f/.wh.nothing', content: '' },
      { name: '.wh..wh.plnk', content: '' },
    ]);
    expect(readdirSync(join(rootfs, 'd')).sort()).toEqual(['new', 'other']);
    expect(readdirSync(join(rootfs, 'e'))).toEqual(['new']);
    expect(readdirSync(rootfs).sort()).toEqual(['d', 'e']);
    expect(text('d/new')).toBe('new');
  });

  it('deletes through a link only inside the root', async () => {
    await unpack([{ name: 'out', type: 'symlink', linkname: join(directory, 'outside') }]);
    await unpack([
      { name: 'out/.wh.victim', content: '' },
      { name: 'out/.wh..wh..opq', content: '' },
    ]);
    expect(readFileSync(join(directory, 'outside', 'victim'), 'utf8')).toBe('untouched');
  });

  it('links to files of layers below', async () => {
    await unpack([{ name: 'd/file', content: 'linked' }]);
    await unpack([{ name: 'e/link', type: 'link', linkname: 'd/file' }]);
    expect(lstatSync(join(rootfs, 'd/file')).nlink).toBe(2);
    expect(text('e/link')).toBe('linked');
  });

  it('forgets a link below that a later entry replaces', async () => {
    await unpack([
      { name: 'a', type: 'link', linkname: 'nothing' },
      { name: 'a', content: 'file' },
      { name: 'd/b', type: 'link', linkname: 'nothing' },
      { name: 'd', content: 'file' },
    ]);
    expect([text('a'), text('d')]).toEqual(['file', 'file']);
  });

  it('keeps names that are no UTF-8', async () => {
    const archive = execFileSync('sh', [
      '-c',
      'cd "$0" && mkdir n && printf x > "n/$(printf "\\351\\377")" && tar -cf - n',
      join(directory, 'outside'),
    ]);
    rmSync(join(directory, 'outside', 'n'), { recursive: true });
    const layer = join(directory, 'layer');
    createRootfs(layer);
    const unpacker = new LayerUnpacker(layer, new UnpackBudget(limits), new SpecialFiles({}, () => undefined));
    new TarReader(unpacker).write(archive);
    mergeLayer(rootfs, layer, unpacker.finish());
    expect(readdirSync(join(rootfs, 'n'), 'latin1')).toEqual(['\xe9\xff']);
  });

  it('makes devices and FIFOs with mknod, and leaves them out with a notice without it', async (context) => {
    const entries: TestEntry[] = [
      { name: 'null', type: 'character-device', devmajor: 1, devminor: 3, mode: 0o666 },
      { name: 'pipe', type: 'fifo', mode: 0o600, uid: 3, gid: 4 },
      { name: 'whiteout', type: 'character-device', devmajor: 0, devminor: 0 },
    ];
    await unpack(entries);
    expect(readdirSync(rootfs)).toEqual([]);
    expect(notices).toHaveLength(3);
    if (!existsSync('/usr/bin/mknod')) context.skip('mknod is not installed');
    await unpack(entries, { mknod: '/usr/bin/mknod' });
    expect(readdirSync(rootfs).sort()).toEqual(['null', 'pipe']);
    expect(lstatSync(join(rootfs, 'null')).rdev).toBe((1 << 8) + 3);
    expect(lstatSync(join(rootfs, 'pipe'))).toMatchObject({ uid: 3, gid: 4 });
  });

  it('leaves extended attributes out with a notice, and sets them where setfattr is', async (context) => {
    const entries = [
      {
        name: 'f',
        content: 'x',
        pax: { 'SCHILY.xattr.user.note': 'hello', 'SCHILY.xattr.trusted.overlay.opaque': 'y' },
      },
    ];
    await unpack(entries);
    expect(notices.join('\n')).toMatch(/trusted\.overlay\.opaque/);
    expect(notices.join('\n')).toMatch(/no setfattr/);
    if (!existsSync('/usr/bin/setfattr')) context.skip('setfattr (Debian package attr) is not installed');
    await unpack(entries, { setfattr: '/usr/bin/setfattr' });
    expect(
      execFileSync('getfattr', ['--absolute-names', '--only-values', '-n', 'user.note', join(rootfs, 'f')]).toString(),
    ).toBe('hello');
  });
});
