import { type ContainerKind, isShimAnnotation } from './annotations.ts';
import type { MountSpecification, Specification } from './specification.ts';

/** Where the guest keeps what belongs to containers (the agent protocol's fixed paths). */
export const guestPaths = {
  rootFilesystem: (containerId: string): string => `/run/kata-containers/${containerId}/rootfs`,
  sharedContainers: '/run/kata-containers/shared/containers',
  sandboxSharedMemory: '/run/kata-containers/sandbox/shm',
  ephemeral: (name: string): string => `/run/kata-containers/sandbox/ephemeral/${name}`,
  localStorage: (name: string): string => `/run/kata-containers/sandbox/storage/${name}`,
};

/** Namespaces that the guest has its own idea of: all containers share the guest's network, and see its processes. */
const droppedNamespaces = new Set(['pid', 'network', 'time', 'cgroup', 'user']);

/** Whether the pod shares one process namespace: the CRI then gives the container the path of the sandbox's. */
export function sharesProcessNamespace(specification: Specification): boolean {
  return (specification.linux?.namespaces ?? []).some(({ type, path }) => type === 'pid' && (path ?? '') !== '');
}

/**
 * Changes a config.json of the host into what the guest is to run (Kata's rules, all others of which are no-ops here):
 * no hooks, no host namespaces, paths or seccomp profile, no cgroup settings but CPU and memory, the root file system
 * and mounts at their guest paths, and two annotations that say where the container comes from.
 *
 * Hooks and security labels are left out by the type: `Specification` does not hold them.
 */
export function adaptSpecification(
  specification: Specification,
  target: {
    readonly containerId: string;
    readonly bundle: string;
    readonly kind: ContainerKind;
    readonly mounts: readonly MountSpecification[];
    readonly disableSeccomp: boolean;
  },
): Specification {
  const { seccomp, namespaces, resources, ...linux } = specification.linux ?? {};
  const annotations = Object.fromEntries(
    Object.entries(specification.annotations ?? {}).filter(
      ([key]) => key !== 'io.katacontainers.config.hypervisor.cc_init_data' && !isShimAnnotation(key),
    ),
  );
  return {
    ...specification,
    root: { path: guestPaths.rootFilesystem(target.containerId), readonly: specification.root?.readonly ?? false },
    mounts: target.mounts,
    annotations: {
      ...annotations,
      'io.katacontainers.pkg.oci.bundle_path': target.bundle,
      'io.katacontainers.pkg.oci.container_type': target.kind,
    },
    linux: {
      ...linux,
      resources: {
        ...(resources?.memory && { memory: resources.memory }),
        ...(resources?.cpu && { cpu: resources.cpu }),
      },
      namespaces: (namespaces ?? [])
        .filter(({ type }) => !droppedNamespaces.has(type ?? ''))
        .map(({ type }) => ({ type: type ?? '', path: '' })),
      ...(seccomp && !target.disableSeccomp && { seccomp }),
    },
  };
}
