import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { DeviceSchema, StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { SpecSchema } from '@sealpod/protocol/gen/kata/oci_pb';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RunCommand } from '../command.ts';
import { findDisk } from './disk.ts';
import { checkVolumeHeader, isEmpty, isEncryptedVolume } from './header.ts';
import { PersistentVolumes } from './persistent-volumes.ts';
import { openVolumeDevices } from './volume-devices.ts';

let base: string;
let sysfs: string;
let devices: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'sealpod-disks-'));
  sysfs = join(base, 'sys');
  devices = join(base, 'dev');
  for (const folder of [sysfs, devices]) mkdirSync(folder);
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

/** A SCSI disk as the kernel shows it. */
function scsiDisk(name: string, unit: string, serial: string, content: Buffer = Buffer.alloc(2 << 20)): string {
  mkdirSync(join(sysfs, 'bus/scsi/devices', unit, 'block', name), { recursive: true });
  mkdirSync(join(sysfs, 'class/block', name, 'device'), { recursive: true });
  const page = Buffer.concat([Buffer.from([0, 0x80, 0, serial.length]), Buffer.from(serial)]);
  writeFileSync(join(sysfs, 'class/block', name, 'device/vpd_pg80'), page);
  writeFileSync(join(devices, name), content);
  return join(devices, name);
}

describe('disks', () => {
  it('finds a SCSI disk by its unit once it is there, and only with the serial number asked for', async () => {
    const paths = { sysfs, devices };
    const address = { driver: 'scsi', source: '0:3', serial: 'abc' };
    const finding = findDisk(address, paths, 5000);
    scsiDisk('sdb', '2:0:0:13', 'abc');
    scsiDisk('sda', '2:0:0:3', 'abc');
    expect(await finding).toBe(join(devices, 'sda'));
    expect(await findDisk({ ...address, serial: undefined }, paths, 0)).toBe(join(devices, 'sda'));
    await expect(findDisk({ ...address, serial: 'other' }, paths, 0)).rejects.toMatchObject({
      code: 'NOT_FOUND',
      detail: { actual: 'disk sda with serial number abc' },
    });
    await expect(findDisk({ ...address, source: '0:4' }, paths, 0)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('finds a virtio disk by its PCI path, as a shim of another hypervisor names it', async () => {
    const bridge = join(sysfs, 'devices/pci0000:00/0000:00:02.0/0000:01:03.0/virtio5/block/vdc');
    mkdirSync(bridge, { recursive: true });
    mkdirSync(join(sysfs, 'class/block/vdc'), { recursive: true });
    writeFileSync(join(sysfs, 'class/block/vdc/serial'), 'x1\n');
    writeFileSync(join(devices, 'vdc'), '');
    const find = (source: string, serial?: string) =>
      findDisk({ driver: 'blk', source, serial }, { sysfs, devices }, 0);
    expect(await find('02/03')).toBe(join(devices, 'vdc'));
    expect(await find('02/03', 'x1')).toBe(join(devices, 'vdc'));
    await expect(find('02/04')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    for (const source of ['', '../x', '02/', '2', '/dev/vda'])
      await expect(find(source)).rejects.toMatchObject({ status: 3 });
  });
});

const header = {
  keyslots: {
    0: {
      type: 'luks2',
      key_size: 64,
      af: { type: 'luks1', stripes: 4000, hash: 'sha256' },
      area: { type: 'raw', offset: '32768', size: '258048', encryption: 'aes-xts-plain64', key_size: 64 },
      kdf: { type: 'pbkdf2', hash: 'sha256', iterations: 1000, salt: 'AA==' },
    },
  },
  tokens: {},
  segments: {
    0: {
      type: 'crypt',
      offset: '1048576',
      size: 'dynamic',
      iv_tweak: '0',
      encryption: 'aes-xts-plain64',
      sector_size: 512,
    },
  },
  digests: {
    0: { type: 'pbkdf2', keyslots: ['0'], segments: ['0'], hash: 'sha256', iterations: 1000, salt: 'A', digest: 'B' },
  },
  config: { json_size: '12288', keyslots_size: '1015808' },
};

describe('the header of an encrypted volume', () => {
  const changed = (path: string, value: unknown): string => {
    const copy = structuredClone(header) as Record<string, unknown>;
    const steps = path.split('.');
    const last = steps.pop() ?? '';
    let place: Record<string, unknown> = copy;
    for (const step of steps) place = place[step] as Record<string, unknown>;
    place[last] = value;
    return JSON.stringify(copy);
  };

  it('is accepted as cryptsetup writes it', () => {
    expect(() => checkVolumeHeader(JSON.stringify(header))).not.toThrow();
  });

  it.each([
    ['no encryption of the data', 'segments.0.encryption', 'cipher_null-ecb'],
    ['data that are not encrypted at all', 'segments.0.type', 'linear'],
    ['no encryption of the key: the host would choose it', 'keyslots.0.area.encryption', 'cipher_null-ecb'],
    ['a key of another size', 'keyslots.0.key_size', 16],
    ['a second segment', 'segments.1', header.segments[0]],
    ['another place of the data', 'segments.0.iv_tweak', '8'],
    ['part of the disk only', 'segments.0.size', '4096'],
    ['a token that would ask for a key elsewhere', 'tokens.0', { type: 'x', keyslots: [] }],
    ['requirements', 'config.requirements', { mandatory: ['online-reencrypt'] }],
    ['an unbound digest', 'digests.0.segments', []],
    ['no slot', 'keyslots', {}],
    ['a slot to be rewritten', 'keyslots.1', { type: 'reencrypt' }],
    ['no such member', 'segments', undefined],
  ])('is refused with %s', (_what, path, value) => {
    expect(() => checkVolumeHeader(changed(path, value))).toThrow(expect.objectContaining({ code: 'VOLUME_FORMAT' }));
  });

  it('is told by its first bytes', () => {
    expect(isEncryptedVolume(Buffer.from('LUKS\xba\xbe\x00\x02', 'latin1'))).toBe(true);
    expect(isEncryptedVolume(Buffer.from('LUKS\xba\xbe\x00\x01', 'latin1'))).toBe(false);
    expect(isEncryptedVolume(Buffer.alloc(8))).toBe(false);
    expect([isEmpty(Buffer.alloc(9)), isEmpty(Buffer.from([0, 1]))]).toEqual([true, false]);
  });
});

describe('volumes', () => {
  const commands: { line: string; input: string | undefined }[] = [];
  let answers: Record<string, () => string>;
  const run: RunCommand = async (command, arguments_, options) => {
    const line = [command, ...arguments_].join(' ');
    commands.push({ line, input: options?.input === undefined ? undefined : Buffer.from(options.input).toString() });
    // cryptsetup makes the detached header.
    const made = /luksFormat .*--header (\S+)/.exec(line)?.[1];
    if (made !== undefined)
      writeFileSync(made, Buffer.concat([Buffer.from('LUKS\xba\xbe\x00\x02', 'latin1'), Buffer.alloc(1 << 20)]));
    return Object.entries(answers).find(([start]) => line.startsWith(start))?.[1]() ?? '';
  };
  const secret = 'k'.repeat(32);
  const resource = async (uri: string) => Buffer.from(uri === 'kbs:///default/volume-key/a' ? secret : 'short');
  const volumes = () => new PersistentVolumes({ run, resource, disks: { sysfs, devices }, work: join(base, 'work') });
  const storage = (more: object = {}) =>
    create(StorageSchema, {
      driver: 'scsi',
      source: '0:0',
      fstype: 'ext4',
      driverOptions: ['serial=s'],
      mountPoint: join(base, 'mnt'),
      ...more,
    });
  const lines = () => commands.map(({ line }) => line.replaceAll(base, ''));
  beforeEach(() => {
    commands.splice(0);
    answers = {};
  });

  it('makes a file system on a disk that is empty, and on no other; nothing of it can be a device or run as another user', async () => {
    const disk = scsiDisk('sda', '0:0:0:0', 's');
    await volumes().mount(storage({ options: ['noatime'] }));
    expect(lines()).toEqual([
      'mke2fs -q -F -t ext4 -E nodiscard /dev/sda',
      'mount -t ext4 -o noatime,nosuid,nodev /dev/sda /mnt',
    ]);
    commands.splice(0);
    writeFileSync(disk, 'something');
    await volumes().mount(storage({ options: ['ro'] }));
    expect(lines()).toEqual(['mount -t ext4 -o ro,nosuid,nodev /dev/sda /mnt']);
  });

  it('an encrypted volume: the key goes to standard input alone, and the header to the disk last', async () => {
    const disk = scsiDisk('sda', '0:0:0:0', 's');
    const pod = volumes();
    const driverOptions = ['serial=s', 'encryption_key=kbs:///default/volume-key/a'];
    answers = {
      mke2fs: () => {
        expect(isEmpty(readFileSync(disk).subarray(0, 4096))).toBe(true);
        return '';
      },
    };
    await pod.mount(storage({ driverOptions }));
    const [format, open, make, mount] = commands;
    expect(format?.line).toMatch(
      /^cryptsetup luksFormat .*--cipher aes-xts-plain64 --key-size 512 .*--key-file - \S+\/dev\/sda$/,
    );
    expect(open?.line).toMatch(
      /^cryptsetup open .*--header \S+\/work\/volume-\w+\.header .*--key-file - \S+\/dev\/sda volume-\w+$/,
    );
    expect(make?.line).toMatch(/^mke2fs .*\/dev\/mapper\/volume-\w+$/);
    expect(mount?.line).toMatch(/^mount -t ext4 -o nosuid,nodev \/dev\/mapper\/volume-\w+ /);
    expect([format?.input, open?.input, mount?.input]).toEqual([secret, secret, undefined]);
    expect(lines().join()).not.toContain(secret);
    expect(isEncryptedVolume(readFileSync(disk))).toBe(true);
    await pod.close();
    expect(commands.at(-1)?.line).toMatch(/^cryptsetup close volume-\w+$/);

    commands.splice(0);
    answers = {
      'cryptsetup luksDump': () => JSON.stringify(header),
      'cryptsetup open': () => {
        throw new Error('cryptsetup open: No key available with this passphrase.');
      },
    };
    await expect(volumes().mount(storage({ driverOptions }))).rejects.toMatchObject({ code: 'VOLUME_KEY' });
    expect(lines().some((line) => /mke2fs|luksFormat|^mount/.test(line))).toBe(false);
    expect(() => statSync(join(base, 'work', 'x'))).toThrow();
  });

  it('a disk with something else is neither opened nor overwritten; a short key makes no volume', async () => {
    scsiDisk('sda', '0:0:0:0', 's', Buffer.from('an old file system'));
    const driverOptions = ['serial=s', 'encryption_key=kbs:///default/volume-key/a'];
    await expect(volumes().mount(storage({ driverOptions }))).rejects.toMatchObject({ code: 'VOLUME_FORMAT' });
    const short = ['serial=s', 'encryption_key=kbs:///default/volume-key/b'];
    await expect(volumes().mount(storage({ driverOptions: short }))).rejects.toMatchObject({ code: 'VOLUME_KEY' });
    expect(commands).toEqual([]);
  });

  it('refuses what it does not know: options, file systems, a second use that differs', async () => {
    scsiDisk('sda', '0:0:0:0', 's', Buffer.from('x'));
    for (const more of [
      { fstype: 'xfs' },
      { options: ['bind'] },
      { options: ['dev'] },
      { driverOptions: ['serial=s', 'x'] },
      { driverOptions: ['serial=s', 'serial=s'] },
    ])
      await expect(volumes().mount(storage(more)), JSON.stringify(more)).rejects.toMatchObject({ status: 3 });
    const pod = volumes();
    await pod.mount(storage());
    const other = storage({ driverOptions: ['serial=s', 'encryption_key=kbs:///default/volume-key/a'] });
    await expect(pod.mount(other)).rejects.toMatchObject({ code: 'VOLUME_FORMAT' });
  });

  it('a device has the numbers of this guest, whatever the host writes', async () => {
    mkdirSync(join(sysfs, 'bus/scsi/devices/0:0:0:7/block/null'), { recursive: true });
    const pod = new PersistentVolumes({ run, resource: undefined, disks: { sysfs, devices: '/dev' } });
    const spec = create(SpecSchema, { Linux: { Devices: [{ Path: '/dev/raw', Type: 'b', Major: 250n, Minor: 9n }] } });
    const device = create(DeviceSchema, { id: '0:7', type: 'scsi', containerPath: '/dev/raw' });
    expect(await openVolumeDevices([device], spec, pod)).toEqual([{ major: 1, minor: 3 }]);
    expect(spec.Linux?.Devices[0]).toMatchObject({ Major: 1n, Minor: 3n });
    for (const wrong of [{ type: 'vfio-pci' }, { containerPath: '/dev/other' }])
      await expect(openVolumeDevices([{ ...device, ...wrong }], spec, pod)).rejects.toMatchObject({ status: 3 });
  });
});
