import { create } from '@bufbuild/protobuf';
import { type Storage, StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { guestPaths } from '../oci/adapt.ts';
import { type ContainerKind, imageReference } from '../oci/annotations.ts';
import type { Specification } from '../oci/specification.ts';

/**
 * The root file system of a container: the guest pulls the image itself (kata.md §2.4). The metadata are all annotations
 * of the container, by which the guest knows a sandbox, whose image it never pulls.
 *
 * @throws SealpodError UNSUPPORTED where no annotation names the image.
 */
export function guestPullStorage(containerId: string, specification: Specification, kind: ContainerKind): Storage {
  const metadata = { ...specification.annotations };
  delete metadata['io.katacontainers.config.hypervisor.cc_init_data'];
  return create(StorageSchema, {
    driver: 'image_guest_pull',
    driverOptions: [`image_guest_pull=${JSON.stringify({ metadata })}`],
    source: imageReference(specification, kind),
    fstype: 'overlay',
    mountPoint: guestPaths.rootFilesystem(containerId),
  });
}

/** The sandbox's /dev/shm, shared by all its containers. */
export function sharedMemoryStorage(): Storage {
  return create(StorageSchema, {
    driver: 'ephemeral',
    source: 'shm',
    fstype: 'tmpfs',
    options: ['noexec', 'nosuid', 'nodev', 'mode=1777', `size=${64 * 1024 * 1024}`],
    mountPoint: guestPaths.sandboxSharedMemory,
  });
}
