import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { MountSchema } from '@sealpod/protocol/gen/kata/oci_pb';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RunCommand } from './command.ts';
import { resolveBindSources } from './mounts.ts';
import { OutOfMemoryEvents } from './out-of-memory.ts';
import { OutputBuffer } from './output-buffer.ts';
import { readStatistics } from './statistics.ts';
import { StorageTable } from './storage.ts';
import { applySysctls } from './sysctl.ts';
import { readStart } from './volume-file.ts';
import { PersistentVolumes } from './volumes/persistent-volumes.ts';

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'sealpod-files-'));
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

describe('storages', () => {
  const commands: string[] = [];
  const run: RunCommand = async (command, arguments_) => `${commands.push([command, ...arguments_].join(' '))}`;
  const table = () => new StorageTable(base, run, new PersistentVolumes({ run, resource: undefined }));
  beforeEach(() => commands.splice(0));

  it('mounts once for all users of a mount point, and keeps it for those that come later, until the pod ends', async () => {
    const storages = table();
    const storage = create(StorageSchema, {
      driver: 'ephemeral',
      options: ['size=1m', `fsgid=${process.getgid?.()}`],
      mountPoint: join(base, 'sandbox/e'),
    });
    await Promise.all([storages.attach(storage), storages.attach(storage)]);
    await storages.detach(storage.mountPoint);
    expect(commands).toEqual([`mount -t tmpfs -o size=1m tmpfs ${storage.mountPoint}`]);
    await storages.detach(storage.mountPoint);
    await storages.attach(storage);
    await storages.detach(storage.mountPoint);
    expect(commands).toHaveLength(1);
    await storages.close();
    expect(commands.slice(1)).toEqual([`umount ${storage.mountPoint}`]);
  });

  it('makes a local folder of the mode asked for', async () => {
    const mountPoint = join(base, 'sandbox/storage/v');
    await table().attach(create(StorageSchema, { driver: 'local', options: ['mode=0777'], mountPoint }));
    expect(statSync(mountPoint).mode & 0o7777).toBe(0o777);
    expect(commands).toEqual([]);
  });

  it('gives a volume to the group that a shim names: fsGroup of a pod', async ({ skip }) => {
    if (process.getuid?.() !== 0) skip('needs root to give files away');
    const folder = (name: string) => join(base, 'sandbox', name);
    const local = { driver: 'local', source: 'local', fstype: 'local', options: ['mode=0777', 'fsgid=2000'] };
    await table().attach(create(StorageSchema, { ...local, mountPoint: folder('local') }));
    const memory = { driver: 'ephemeral', source: 'tmpfs', fstype: 'tmpfs', options: ['fsgid=2000'] };
    await table().attach(create(StorageSchema, { ...memory, mountPoint: folder('memory') }));
    for (const [name, permissions] of [
      ['local', 0o777],
      ['memory', 0o755],
    ] as const) {
      expect(statSync(folder(name))).toMatchObject({ uid: 0, gid: 2000 });
      expect(statSync(folder(name)).mode & 0o7777, name).toBe(0o2000 | permissions);
    }
    expect(commands).toEqual([`mount -t tmpfs tmpfs ${folder('memory')}`]);
    for (const option of ['fsgid=', 'fsgid=root', 'fsgid=-1', 'fsgid=4294967295']) {
      const mountPoint = folder('refused');
      await expect(
        table().attach(create(StorageSchema, { driver: 'ephemeral', options: [option], mountPoint })),
        option,
      ).rejects.toMatchObject({ status: 3 });
    }
    expect(commands).toHaveLength(1);
  });

  it('refuses other drivers, and places outside or behind a link', async () => {
    symlinkSync('/tmp', join(base, 'link'));
    const refused = [
      { driver: 'blk', mountPoint: join(base, 'x') },
      { driver: 'ephemeral', mountPoint: '/mnt' },
      { driver: 'ephemeral', mountPoint: `${base}/../x` },
      { driver: 'local', mountPoint: join(base, 'link/x') },
      { driver: 'local', options: ['mode=rwx'], mountPoint: join(base, 'sandbox/x') },
    ];
    for (const storage of refused)
      await expect(table().attach(create(StorageSchema, storage)), storage.mountPoint).rejects.toMatchObject({
        status: 3,
      });
    expect(commands).toEqual([]);
  });
});

describe('storages that would change what is measured or checked', () => {
  const commands: string[] = [];
  const attach = (storage: object) =>
    new StorageTable(base, run, new PersistentVolumes({ run, resource: undefined })).attach(
      create(StorageSchema, storage),
    );
  const run: RunCommand = async (command, arguments_) => `${commands.push([command, ...arguments_].join(' '))}`;

  it('nothing is put over a root file system, an image or another part of the agent’s folder', async () => {
    for (const place of ['c1/rootfs', 'c1/rootfs/etc', 'image/images', 'shared', 'sandbox']) {
      for (const driver of ['ephemeral', 'local'])
        await expect(attach({ driver, mountPoint: join(base, place) }), place).rejects.toMatchObject({ status: 3 });
    }
    expect(commands).toEqual([]);
  });

  it('options of mount(8) beyond those of a tmpfs are refused', async () => {
    const mountPoint = join(base, 'sandbox/e');
    for (const option of ['remount', 'bind', 'X-mount.subdir=etc', 'loop', 'size=1m,remount', 'helper=x', 'move']) {
      await expect(attach({ driver: 'ephemeral', options: [option], mountPoint }), option).rejects.toMatchObject({
        status: 3,
      });
    }
    expect(commands).toEqual([]);
  });
});

describe('a file that a container wrote for the host to read', () => {
  it('is read to its limit, and is neither a link, a pipe nor a folder', async () => {
    writeFileSync(join(base, 'message'), 'x'.repeat(10_000));
    expect(await readStart(join(base, 'message'), 4096)).toBe('x'.repeat(4096));
    writeFileSync(join(base, 'short'), 'done');
    expect(await readStart(join(base, 'short'), 4096)).toBe('done');
    symlinkSync(join(base, 'message'), join(base, 'link'));
    await expect(readStart(join(base, 'link'), 10)).rejects.toMatchObject({ code: 'ELOOP' });
    execFileSync('mkfifo', [join(base, 'pipe')]);
    await expect(readStart(join(base, 'pipe'), 10)).rejects.toMatchObject({ status: 3 });
    await expect(readStart(base, 10)).rejects.toMatchObject({ status: 3 });
  });
});

describe('mounts of volumes', () => {
  const bind = (source: string) => [create(MountSchema, { destination: '/mnt', type: 'bind', source })];

  it('no configuration, image or root file system of a container is a volume, also through a link inside the root', async () => {
    mkdirSync(join(base, 'shared/containers/volume'), { recursive: true });
    mkdirSync(join(base, 'c1/rootfs'), { recursive: true });
    writeFileSync(join(base, 'c1/config.json'), '{"env":["TOKEN=opened secret"]}');
    symlinkSync('../../c1/config.json', join(base, 'shared/containers/link'));
    symlinkSync('volume', join(base, 'shared/containers/inside'));
    for (const place of ['c1/config.json', 'c1/rootfs', 'shared', 'shared/containers/link']) {
      await expect(resolveBindSources(base, bind(join(base, place))), place).rejects.toMatchObject({ status: 3 });
    }
    const inside = join(base, 'shared/containers/inside');
    expect([...(await resolveBindSources(base, bind(inside)))]).toEqual([
      [inside, realpathSync(join(base, 'shared/containers/volume'))],
    ]);
  });
});

describe('sysctls', () => {
  it('none opens the loopback interface, where the REST API listens, to the network', async () => {
    for (const name of ['net.ipv4.conf.all.route_localnet', 'net.ipv4.conf.eth0.route_localnet']) {
      await expect(applySysctls(base, { [name]: '1' }), name).rejects.toMatchObject({ status: 3 });
    }
  });

  it('sets those of a pod’s namespaces, and none where one is another’s', async () => {
    mkdirSync(join(base, 'net/ipv4'), { recursive: true });
    await applySysctls(base, { 'net.ipv4.ip_unprivileged_port_start': '0' });
    expect(readFileSync(join(base, 'net/ipv4/ip_unprivileged_port_start'), 'utf8')).toBe('0');
    for (const name of [
      'kernel.core_pattern',
      'vm.overcommit_memory',
      'net...kernel.x',
      'net/../kernel',
      'kernel.hostname',
      '',
    ]) {
      await expect(applySysctls(base, { 'net.ipv4.other': '1', [name]: '1' }), name).rejects.toMatchObject({
        status: 3,
      });
    }
    expect(() => statSync(join(base, 'net/ipv4/other'))).toThrow();
  });
});

describe('statistics', () => {
  it('reads the files of a cgroup, in nanoseconds and bytes', async () => {
    const files = {
      'cpu.stat': 'usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n',
      'memory.stat': 'anon 1\nfile 22\nkernel 5\ninactive_file 7\n',
      'memory.current': '100\n',
      'memory.peak': '200\n',
      'memory.max': 'max\n',
      'memory.events': 'low 0\nmax 9\noom_kill 1\n',
      'pids.current': '3\n',
      'pids.max': '50\n',
      'io.stat': '8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1 \n',
      net: 'Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n',
    };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(base, name), text);
    expect(await readStatistics(base, join(base, 'net'))).toMatchObject({
      cgroupStats: {
        cpuStats: {
          cpuUsage: { totalUsage: 30_000n, usageInKernelmode: 10_000n, usageInUsermode: 20_000n },
          throttlingData: { periods: 4n, throttledPeriods: 3n, throttledTime: 2000n },
        },
        memoryStats: {
          cache: 22n,
          usage: { usage: 100n, maxUsage: 200n, failcnt: 9n, limit: 0x7ffffffffffff000n },
          stats: { inactive_file: 7n },
        },
        pidsStats: { current: 3n, limit: 50n },
        blkioStats: {
          ioServiceBytesRecursive: [
            { major: 8n, minor: 0n, op: 'Read', value: 1n },
            { major: 8n, minor: 0n, op: 'Write', value: 2n },
          ],
          ioServicedRecursive: [
            { major: 8n, minor: 0n, op: 'Read', value: 3n },
            { major: 8n, minor: 0n, op: 'Write', value: 4n },
          ],
        },
      },
      networkStats: [
        {
          name: 'eth0',
          rxBytes: 1n,
          rxPackets: 2n,
          rxErrors: 3n,
          rxDropped: 4n,
          txBytes: 5n,
          txPackets: 6n,
          txErrors: 7n,
          txDropped: 8n,
        },
      ],
    });
    expect((await readStatistics(join(base, 'none'), join(base, 'none'))).networkStats).toEqual([]);
  });
});

describe('out of memory', () => {
  it('tells each kill once, to who waits or to who asks later', async () => {
    const events = new OutOfMemoryEvents();
    const file = join(base, 'memory.events');
    writeFileSync(file, 'oom 0\noom_kill 0\n');
    events.watch('c', base);
    events.watch('without-controller', join(base, 'none'));
    const never = new AbortController();
    const first = events.next(never.signal);
    writeFileSync(file, 'oom 1\noom_kill 1\n');
    expect(await first).toBe('c');
    const stopped = new AbortController();
    const given = events.next(stopped.signal);
    stopped.abort(new Error('gone'));
    await expect(given).rejects.toThrow('gone');
    const second = events.next(never.signal);
    writeFileSync(file, 'oom 2\noom_kill 2\n');
    expect(await second).toBe('c');
    events.close();
  });
});

describe('output buffer', () => {
  const signal = new AbortController().signal;

  it('hands out in the order written, in pieces of the size asked for, and then the end', async () => {
    const buffer = new OutputBuffer();
    const early = buffer.read(4, signal);
    buffer.push(Buffer.from('abcdef'));
    buffer.push(Buffer.from('ghi'));
    buffer.end();
    expect(Buffer.from(await early).toString()).toBe('abcd');
    expect(Buffer.from(await buffer.read(100, signal)).toString()).toBe('efghi');
    expect(await buffer.read(100, signal)).toHaveLength(0);
  });

  it('holds the source back while much is unread, and lets it go when read or discarded', async () => {
    const buffer = new OutputBuffer();
    const calls: string[] = [];
    buffer.throttle({ pause: () => calls.push('pause'), resume: () => calls.push('resume') });
    buffer.push(Buffer.alloc(300 * 1024));
    expect(calls).toEqual(['pause']);
    await buffer.read(200 * 1024, signal);
    expect(calls).toEqual(['pause', 'resume']);
    buffer.discard();
    buffer.push(Buffer.alloc(1024 * 1024));
    expect(calls).toEqual(['pause', 'resume', 'resume']);
    buffer.end();
    expect(await buffer.read(10, signal)).toHaveLength(0);
  });

  it('gives up waiting when the caller goes', async () => {
    const buffer = new OutputBuffer();
    const caller = new AbortController();
    const read = buffer.read(1, caller.signal);
    caller.abort(new Error('gone'));
    await expect(read).rejects.toThrow('gone');
    await expect(buffer.read(1, caller.signal)).rejects.toThrow('gone');
  });
});
