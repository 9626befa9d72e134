import { chmodSync, chownSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CopyFileRequest } from '@sealpod/protocol/gen/kata/agent_pb';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { chunkBytes, copyRequests } from './copy.ts';
import { copyTarget, planMounts } from './plan.ts';

const root = mkdtempSync(join(tmpdir(), 'sealpod-copy-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const limits = { copyLimitBytes: 10 * chunkBytes, copyLimitEntries: 20 };

async function collect(source: string, within = limits): Promise<CopyFileRequest[]> {
  const requests: CopyFileRequest[] = [];
  for await (const request of copyRequests({ source, target: '/t' }, within)) requests.push(request);
  return requests;
}

test('a large file goes in chunks of 1 MiB with rising offsets, an empty one in one', async () => {
  const path = join(root, 'large');
  const content = Buffer.alloc(2 * chunkBytes + 5, 'ab');
  writeFileSync(path, content);
  chmodSync(path, 0o640);
  const requests = await collect(path);
  expect(requests.map(({ offset, data }) => [Number(offset), data.length])).toEqual([
    [0, chunkBytes],
    [chunkBytes, chunkBytes],
    [2 * chunkBytes, 5],
  ]);
  expect(Buffer.concat(requests.map(({ data }) => data)).equals(content)).toBe(true);
  expect(requests[0]).toMatchObject({
    path: '/t',
    fileSize: BigInt(content.length),
    fileMode: 0o100640,
    dirMode: 0o750,
  });
  writeFileSync(join(root, 'empty'), '');
  expect(await collect(join(root, 'empty'))).toMatchObject([{ fileSize: 0n }]);
});

test("kubelet's atomic volumes keep their links, in a stable order", async () => {
  const volume = join(root, 'volume');
  mkdirSync(join(volume, '..2026'), { recursive: true });
  writeFileSync(join(volume, '..2026/key'), 'value');
  symlinkSync('..2026', join(volume, '..data'));
  symlinkSync('..data/key', join(volume, 'key'));
  const requests = await collect(volume);
  expect(
    requests.map(({ path, fileMode, data }) => [path, (fileMode & 0o170000).toString(8), Buffer.from(data).toString()]),
  ).toEqual([
    ['/t', '40000', ''],
    ['/t/..2026', '40000', ''],
    ['/t/..2026/key', '100000', 'value'],
    ['/t/..data', '120000', '..2026'],
    ['/t/key', '120000', '..data/key'],
  ]);
});

test('volumes beyond the limits are refused before they are read', async () => {
  const volume = join(root, 'many');
  mkdirSync(volume);
  for (let i = 0; i < 25; i++) writeFileSync(join(volume, `f${i}`), 'x');
  await expect(collect(volume)).rejects.toThrow(/too large/);
  await expect(collect(join(root, 'large'), { ...limits, copyLimitBytes: 100 })).rejects.toThrow(/too large/);
});

test('no name of the host leads out of the guest folder', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (name) => {
      expect(copyTarget('c', `/x/${name}`)).toMatch(
        /^\/run\/kata-containers\/shared\/containers\/c-[0-9a-f]{16}-(?!\.)[A-Za-z0-9._-]+$/,
      );
    }),
  );
});

test('mounts: shm of the sandbox, devices of the guest, files copied, sockets refused', async () => {
  const file = join(root, 'empty');
  const bind = (destination: string, source: string) => ({ destination, source, type: 'bind', options: ['rbind'] });
  const { mounts, copies } = planMounts('c1', [
    { destination: '/proc', source: 'proc', type: 'proc' },
    bind('/dev/shm', '/run/x/shm'),
    bind('/dev/null2', '/dev/null'),
    bind('/etc/hosts', file),
  ]);
  expect(mounts.slice(0, 3).map(({ source }) => source)).toEqual([
    'proc',
    '/run/kata-containers/sandbox/shm',
    '/dev/null',
  ]);
  expect(copies).toEqual([{ source: file, target: mounts[3]?.source }]);
  expect(() => planMounts('c1', [bind('/x', join(root, 'missing'))])).toThrow(/cannot be read/);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(join(root, 'socket'), resolve));
  expect(() => planMounts('c1', [bind('/s', join(root, 'socket'))])).toThrow(/neither file nor directory/);
  server.close();
});

test('an emptyDir keeps the group that kubelet gave it', ({ skip }) => {
  if (process.getuid?.() !== 0) skip('needs root to give files away');
  const volume = (name: string) => join(root, 'pods/p/volumes/kubernetes.io~empty-dir', name);
  const options = ['mode=0777'];
  for (const [name, gid, expected] of [
    ['plain', 0, options],
    ['grouped', 2000, [...options, 'fsgid=2000']],
  ] as const) {
    mkdirSync(volume(name), { recursive: true });
    chownSync(volume(name), 0, gid);
    const { storages } = planMounts('c1', [{ destination: '/v', source: volume(name), type: 'bind' }]);
    // The folder of this test may itself be in memory, where the volume is then one in memory.
    const memory = storages[0]?.driver === 'ephemeral';
    expect(storages[0]?.options, name).toEqual(memory ? expected.slice(1) : expected);
  }
});

test('who writes to a volume while it is copied cannot lead the shim to other files of the host', async () => {
  const secret = join(root, 'host');
  mkdirSync(secret);
  writeFileSync(join(secret, 'file'), 'of the host');
  const volume = join(root, 'contested');
  mkdirSync(join(volume, 'folder'), { recursive: true });
  writeFileSync(join(volume, 'folder/file'), 'of the pod');
  const swapped: string[] = [];
  for await (const { path, data } of copyRequests({ source: volume, target: '/t' }, limits)) {
    swapped.push(`${path} ${Buffer.from(data)}`);
    if (path !== '/t/folder') continue;
    // The folder is being read now.
    renameSync(join(volume, 'folder'), join(volume, 'moved'));
    symlinkSync(secret, join(volume, 'folder'));
  }
  expect(swapped).toEqual(['/t ', '/t/folder ', '/t/folder/file of the pod']);
});

test('a volume of folders within folders beyond measure is refused', async () => {
  const deep = join(root, 'deep');
  mkdirSync(join(deep, ...Array.from({ length: 70 }, () => 'd')), { recursive: true });
  await expect(collect(deep, { ...limits, copyLimitEntries: 1000 })).rejects.toMatchObject({
    code: 'REQUEST_TOO_LARGE',
  });
});
