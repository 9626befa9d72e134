import { randomBytes } from 'node:crypto';
import { realpathSync, type Stats, statfsSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Storage, StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { guestPaths } from '../oci/adapt.ts';
import type { MountSpecification } from '../oci/specification.ts';

/** A file or directory of the host that the guest needs a copy of. */
export interface Copy {
  /** Host path, symbolic links resolved. */
  readonly source: string;
  /** Guest path, confined to the guest's folder for shared files. */
  readonly target: string;
}

/** What becomes of a container's mounts: those the guest makes, what is copied before, and storages of the guest. */
export interface MountPlan {
  readonly mounts: readonly MountSpecification[];
  readonly copies: readonly Copy[];
  readonly storages: readonly Storage[];
}

const tmpfsMagic = 0x01021994;

function isBind(mount: MountSpecification): boolean {
  return mount.type === 'bind' || (mount.options ?? []).some((option) => option === 'bind' || option === 'rbind');
}

/**
 * The guest path of a copied file: only harmless characters of the host's name survive, so that no name chosen on the
 * host leads elsewhere (the agent checks again).
 */
export function copyTarget(containerId: string, source: string, random = randomBytes(8).toString('hex')): string {
  const name =
    basename(source)
      .replaceAll(/[^A-Za-z0-9._-]/g, '_')
      .replace(/^\.+/, '_') || 'root';
  return `${guestPaths.sharedContainers}/${containerId}-${random}-${name}`;
}

/** kubelet's emptyDir volumes, by the folder kubelet gives them. Returns the volume's name. */
function emptyDirectoryVolume(source: string): string | undefined {
  return /\/volumes\/kubernetes\.io~empty-dir\/([^/]+)$/.exec(source)?.[1];
}

function emptyDirectory(name: string, source: string): Storage {
  // Medium "Memory" is a tmpfs that kubelet mounted; else a folder on the node's disk.
  const memory = statfsSync(source).type === tmpfsMagic;
  // kubelet gives the folder to the pod's fsGroup; the guest's is given to it by this option, as upstream's shim has it.
  const { gid } = statSync(source);
  const group = gid === 0 ? [] : [`fsgid=${gid}`];
  return create(StorageSchema, {
    driver: memory ? 'ephemeral' : 'local',
    source: memory ? 'tmpfs' : 'local',
    fstype: memory ? 'tmpfs' : 'local',
    options: memory ? group : ['mode=0777', ...group],
    mountPoint: memory ? guestPaths.ephemeral(name) : guestPaths.localStorage(name),
  });
}

function stat(mount: MountSpecification, source: string): Stats {
  try {
    return statSync(source);
  } catch (cause) {
    throw new SealpodError('NOT_FOUND', `source ${source} of mount ${mount.destination} cannot be read`, { cause });
  }
}

/**
 * Plans the mounts of a container for a guest that shares no file system with the host.
 *
 * @param volumes persistent volumes that are plugged into the machine, by the source of their mounts
 * @throws SealpodError NOT_FOUND for a source that is missing, UNSUPPORTED for a socket or device.
 */
export function planMounts(
  containerId: string,
  mounts: readonly MountSpecification[],
  volumes: ReadonlyMap<string, Storage> = new Map(),
): MountPlan {
  const planned: MountSpecification[] = [];
  const copies: Copy[] = [];
  const storages: Storage[] = [...volumes.values()];
  for (const mount of mounts) {
    const source = mount.source ?? '';
    if (!isBind(mount) || source === '/dev' || source.startsWith('/dev/')) {
      planned.push(mount);
      continue;
    }
    if (mount.destination === '/dev/shm') {
      planned.push({ ...mount, source: guestPaths.sandboxSharedMemory });
      continue;
    }
    const persistent = volumes.get(source);
    if (persistent !== undefined) {
      planned.push({ ...mount, source: persistent.mountPoint });
      continue;
    }
    const volume = emptyDirectoryVolume(source);
    if (volume !== undefined) {
      const storage = emptyDirectory(volume, source);
      storages.push(storage);
      planned.push({ ...mount, source: storage.mountPoint });
      continue;
    }
    const found = stat(mount, source);
    if (!found.isFile() && !found.isDirectory()) {
      throw new SealpodError('UNSUPPORTED', `mount ${mount.destination}: ${source} is neither file nor directory`, {
        fix: 'sockets and devices of the host cannot be shared with a guest; remove the volume',
      });
    }
    const target = copyTarget(containerId, source);
    copies.push({ source: realpathSync(source), target });
    planned.push({ ...mount, source: target });
  }
  return { mounts: planned, copies, storages };
}
