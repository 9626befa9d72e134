import { readFileSync, statSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Device, DeviceSchema, type Storage, StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import type { AttachVolumeResponse } from '@sealpod/protocol/gen/sealpod/volumes_pb';
import { expandVolumeKey, noVolumeKey, parseVolumeKeys, volumeKeysAnnotation } from '@sealpod/protocol/volume-keys';
import { guestPaths } from '../oci/adapt.ts';
import { podName } from '../oci/annotations.ts';
import type { MountSpecification, Specification } from '../oci/specification.ts';
import { directVolumeName, directVolumesFolder, readDirectVolume } from './direct-volume.ts';

/** Plugs a block device of this host into the pod's machine. */
export type AttachVolume = (volume: {
  readonly volumeId: string;
  readonly device: string;
  readonly readOnly: boolean;
}) => Promise<Pick<AttachVolumeResponse, 'driver' | 'source' | 'serial'>>;

/** The persistent volumes of a container, plugged into its machine. */
export interface ContainerVolumes {
  /** Volumes with a file system, by the source of their mounts. */
  readonly storages: ReadonlyMap<string, Storage>;
  /** Raw block devices. */
  readonly devices: readonly Device[];
}

/**
 * Plugs in what a container has of persistent volumes: direct volumes, which nobody mounted on this node, and block devices.
 * Neither is ever mounted here. The keys of encrypted ones are names of resources only; the guest gets the keys itself.
 *
 * @throws SealpodError NOT_FOUND, REQUEST_FORMAT, RES_NAME; what the adaptor says
 */
export async function attachVolumes(
  specification: Specification,
  attach: AttachVolume,
  { directVolumes = directVolumesFolder, sysfs = '/sys' } = {},
): Promise<ContainerVolumes> {
  const keys = keysOf(specification);
  const storages = new Map<string, Storage>();
  for (const mount of specification.mounts ?? []) {
    const { source = '', destination = '' } = mount;
    const volume = source === '' ? undefined : readDirectVolume(source, directVolumes);
    if (volume === undefined || storages.has(source)) continue;
    const readOnly = volume.options.includes('ro');
    const attached = await attach({ volumeId: source, device: volume.device, readOnly });
    storages.set(
      source,
      create(StorageSchema, {
        driver: attached.driver,
        driverOptions: driverOptions(attached.serial, keys.of(destination, volume.key)),
        source: attached.source,
        fstype: volume.fileSystem,
        options: [...volume.options, ...groupOf(mount)],
        mountPoint: guestPaths.localStorage(directVolumeName(source)),
      }),
    );
  }
  const devices: Device[] = [];
  for (const { path = '', type, major = 0, minor = 0 } of specification.linux?.devices ?? []) {
    if (type !== 'b') continue;
    const device = blockDevicePath(major, minor, sysfs);
    const attached = await attach({ volumeId: device, device, readOnly: false });
    devices.push(
      create(DeviceSchema, {
        id: attached.source,
        type: attached.driver,
        containerPath: path,
        options: driverOptions(attached.serial, keys.of(path, undefined)),
      }),
    );
  }
  return { storages, devices };
}

/** Whether a container has any persistent volume. */
export function hasVolumes({ storages, devices }: ContainerVolumes): boolean {
  return storages.size > 0 || devices.length > 0;
}

/** The kernel's name of a block device. @throws SealpodError NOT_FOUND */
export function blockDevicePath(major: number, minor: number, sysfs: string): string {
  const file = `${sysfs}/dev/block/${major}:${minor}/uevent`;
  try {
    const name = /^DEVNAME=([A-Za-z0-9._/-]+)$/m.exec(readFileSync(file, 'utf8'))?.[1];
    if (name !== undefined && !name.includes('..')) return `/dev/${name}`;
    throw new Error(`${file} names no device`);
  } catch (cause) {
    throw new SealpodError('NOT_FOUND', `the node has no block device ${major}:${minor}`, { cause });
  }
}

function driverOptions(serial: string, key: string | undefined): string[] {
  return [`serial=${serial}`, ...(key === undefined ? [] : [`encryption_key=${key}`])];
}

/** The annotation of the pod decides; what a storage driver says counts for the paths that it does not name. */
function keysOf(specification: Specification) {
  const pod = podName(specification);
  const keys = parseVolumeKeys(specification.annotations?.[volumeKeysAnnotation]);
  return {
    of(path: string, fromDriver: string | undefined): string | undefined {
      const key = keys.get(path) ?? (fromDriver?.includes('://') === false ? `kbs:///${fromDriver}` : fromDriver);
      return key === undefined || key === noVolumeKey ? undefined : expandVolumeKey(key, pod);
    },
  };
}

/** The kubelet gives the folder where it believes the volume to be mounted to the pod's fsGroup. */
function groupOf({ source = '' }: MountSpecification): string[] {
  const gid = statSync(source, { throwIfNoEntry: false })?.gid ?? 0;
  return gid === 0 ? [] : [`fsgid=${gid}`];
}
