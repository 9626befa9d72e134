import { chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { toBinary } from '@bufbuild/protobuf';
import { DeviceSchema, StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { volumeKeysAnnotation } from '@sealpod/protocol/volume-keys';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { planMounts } from '../mounts/plan.ts';
import type { Specification } from '../oci/specification.ts';
import { attachVolumes, blockDevicePath } from './attach.ts';
import { directVolumeName, readDirectVolume } from './direct-volume.ts';

let base: string;
let direct: string;
let sysfs: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'sealpod-direct-'));
  direct = join(base, 'direct');
  sysfs = join(base, 'sys');
  mkdirSync(join(sysfs, 'dev/block/7:3'), { recursive: true });
  writeFileSync(join(sysfs, 'dev/block/7:3/uevent'), 'MAJOR=7\nMINOR=3\nDEVNAME=loop3\nDEVTYPE=disk\n');
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

function leave(source: string, info: unknown): void {
  mkdirSync(join(direct, directVolumeName(source)), { recursive: true });
  writeFileSync(
    join(direct, directVolumeName(source), 'mountInfo.json'),
    typeof info === 'string' ? info : JSON.stringify(info),
  );
}
const info = { 'volume-type': 'block', device: '/dev/loop1', fstype: 'ext4', metadata: {}, options: ['noatime'] };

it('reads volumes as storage drivers leave them, and nothing else', () => {
  expect(directVolumeName('/a/\u00fb\u00ff')).toBe('L2Evw7vDvw==');
  leave('/v', info);
  expect(readDirectVolume('/v', direct)).toEqual({
    device: '/dev/loop1',
    fileSystem: 'ext4',
    options: ['noatime'],
    key: undefined,
  });
  leave('/k', { ...info, metadata: { 'encrypt-type': 'luks2', 'kbs-key-id': 'default/volume-key/a' }, options: null });
  expect(readDirectVolume('/k', direct)).toMatchObject({ key: 'default/volume-key/a', options: [] });
  expect(readDirectVolume('/absent', direct)).toBeUndefined();
  expect(readDirectVolume(`/${'x'.repeat(4000)}`, direct)).toBeUndefined();
  for (const damaged of ['', '[]', { ...info, device: 1 }, { ...info, fstype: undefined }, { ...info, options: [1] }]) {
    leave('/v', damaged);
    expect(() => readDirectVolume('/v', direct)).toThrow(expect.objectContaining({ code: 'REQUEST_FORMAT' }));
  }
});

it('plugs volumes in and tells the guest where, in the words of the agent protocol', async () => {
  const source = join(base, 'pod/mount');
  mkdirSync(source, { recursive: true });
  const isRoot = process.getuid?.() === 0;
  if (isRoot) chownSync(source, 0, 2000);
  leave(source, { ...info, metadata: { 'kbs-key-id': 'default/volume-key/driver' } });
  const specification: Specification = {
    annotations: {
      'io.kubernetes.cri.sandbox-name': 'db-0',
      [volumeKeysAnnotation]: '{"/dev/raw":"kbs:///default/volume-key/$(name)"}',
    },
    mounts: [
      { destination: '/data', source, type: 'bind', options: ['rbind', 'rw'] },
      { destination: '/again', source, type: 'bind', options: ['rbind', 'ro'] },
      { destination: '/proc', source: 'proc', type: 'proc' },
    ],
    linux: {
      devices: [
        { path: '/dev/raw', type: 'b', major: 7, minor: 3 },
        { path: '/dev/fuse', type: 'c', major: 10, minor: 229 },
      ],
    },
  };
  const asked: object[] = [];
  const attach = async (volume: object) => ({ driver: 'scsi', source: `0:${asked.push(volume) - 1}`, serial: 'abc' });
  const volumes = await attachVolumes(specification, attach, { directVolumes: direct, sysfs });
  expect(asked).toEqual([
    { volumeId: source, device: '/dev/loop1', readOnly: false },
    { volumeId: '/dev/loop3', device: '/dev/loop3', readOnly: false },
  ]);
  const mountPoint = `/run/kata-containers/sandbox/storage/${directVolumeName(source)}`;
  const plan = planMounts('c1', specification.mounts ?? [], volumes.storages);
  expect(plan.mounts.map((mount) => mount.source)).toEqual([mountPoint, mountPoint, 'proc']);
  expect(plan.copies).toEqual([]);
  const [storage] = plan.storages;
  const [device] = volumes.devices;
  if (storage === undefined || device === undefined) throw new Error('nothing was planned');

  // Byte for byte: agent.proto, Storage{1 driver, 2 driver_options, 3 source, 4 fstype, 5 options, 6 mount_point} and
  // Device{1 id, 2 type, 4 container_path, 5 options}.
  const field = (number: number, value: string) => {
    const text = Buffer.from(value);
    const length = text.length < 128 ? [text.length] : [(text.length & 127) | 128, text.length >> 7];
    return Buffer.concat([Buffer.from([number * 8 + 2, ...length]), text]);
  };
  expect(Buffer.from(toBinary(StorageSchema, storage)).toString('hex')).toBe(
    Buffer.concat([
      field(1, 'scsi'),
      field(2, 'serial=abc'),
      field(2, 'encryption_key=kbs:///default/volume-key/driver'),
      field(3, '0:0'),
      field(4, 'ext4'),
      field(5, 'noatime'),
      ...(isRoot ? [field(5, 'fsgid=2000')] : []),
      field(6, mountPoint),
    ]).toString('hex'),
  );
  expect(Buffer.from(toBinary(DeviceSchema, device)).toString('hex')).toBe(
    Buffer.concat([
      field(1, '0:1'),
      field(2, 'scsi'),
      field(4, '/dev/raw'),
      field(5, 'serial=abc'),
      field(5, 'encryption_key=kbs:///default/volume-key/db-0'),
    ]).toString('hex'),
  );
});

it('a device that the node does not have is not asked for', () => {
  expect(blockDevicePath(7, 3, sysfs)).toBe('/dev/loop3');
  expect(() => blockDevicePath(7, 4, sysfs)).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
});
