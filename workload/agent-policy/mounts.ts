import { SealpodError } from '@sealpod/protocol/errors';
import { literal } from '../kubernetes/names.ts';
import type { Container, PodSpec, Volume, VolumeMount } from '../kubernetes/types.ts';
import type { MountData, PersistentVolumeData, StorageData } from './data.ts';
import { isPersistent, persistentVolume } from './persistent-volumes.ts';

const sandboxFolder = '/run/kata-containers/sandbox';
const defaultTerminationPath = '/dev/termination-log';
const serviceAccountPath = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Names of what kubelet and containerd make for a container, besides its volumes. */
export const runtimeVolumes = {
  hosts: '(etc-)?hosts',
  hostname: 'hostname',
  resolver: 'resolv\\.conf',
  termination: '[0-9a-f]{8}',
  serviceAccount: 'kube-api-access-[a-z0-9]{5}',
} as const;

/** The mounts that a container has, by destination, and the storages they need. */
export interface ContainerMounts {
  readonly mounts: Record<string, MountData>;
  readonly storages: Record<string, StorageData>;
  readonly volumes: Record<string, PersistentVolumeData>;
}

/**
 * @param keys of persistent volumes, by their path in the container
 * @throws SealpodError UNSUPPORTED for a volume that a policy cannot describe, USAGE for a persistent one without a key
 */
export function containerMounts(
  container: Container,
  spec: PodSpec,
  keys: ReadonlyMap<string, string>,
): ContainerMounts {
  const persistent: Record<string, PersistentVolumeData> = {};
  const volumes = new Map((spec.volumes ?? []).map((volume) => [volume.name, volume]));
  const mounts: Record<string, MountData> = runtimeMounts(container, spec);
  const storages: Record<string, StorageData> = {};
  for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
    const volume = volumes.get(mount.name);
    if (volume === undefined)
      throw new SealpodError('USAGE', `container ${container.name}: volume ${mount.name} does not exist`);
    if (isPersistent(volume)) persistent[mount.mountPath] = persistentVolume('filesystem', volume, mount, keys);
    const source = volumeSource(volume, mount, index, storages);
    mounts[mount.mountPath] = bind(source, { readonly: mount.readOnly === true, required: true });
  }
  for (const { name, devicePath } of container.volumeDevices ?? []) {
    const volume = volumes.get(name);
    if (volume === undefined || !isPersistent(volume))
      throw new SealpodError('USAGE', `container ${container.name}: volume ${name} is no claim of a persistent volume`);
    persistent[devicePath] = persistentVolume('block', volume, { mountPath: devicePath }, keys);
  }
  return { mounts, storages, volumes: persistent };
}

function volumeSource(
  volume: Volume,
  mount: VolumeMount,
  index: number,
  storages: Record<string, StorageData>,
): string {
  const isSubPath = (mount.subPath ?? mount.subPathExpr ?? '') !== '';
  if (isCopied(volume)) return `$(copy)${isSubPath ? String(index) : literal(volume.name)}`;
  if (Object.hasOwn(volume, 'emptyDir')) {
    // The kubelet makes the folder of a subPath on the node, so it comes as a copy.
    if (isSubPath) return `$(copy)${index}`;
    const memory = volume.emptyDir?.medium === 'Memory';
    const mountPoint = `${sandboxFolder}/${memory ? 'ephemeral' : 'storage'}/${volume.name}`;
    const type = memory ? 'tmpfs' : 'local';
    storages[mountPoint] = { driver: memory ? 'ephemeral' : 'local', source: type, fstype: type };
    return literal(mountPoint);
  }
  // The name of its folder is that of a PersistentVolume, which the manifest does not know.
  if (isPersistent(volume)) return `${sandboxFolder}/storage/[A-Za-z0-9_=-]{1,255}`;
  const kind = Object.keys(volume).find((name) => name !== 'name') ?? 'none';
  throw unsupported(kind, volume.name);
}

/** Volumes whose content the node's kubelet writes, and the shim copies into the guest. */
export function isCopied(volume: Volume): boolean {
  return ['configMap', 'secret', 'downwardAPI', 'projected'].some((kind) => volume[kind] !== undefined);
}

function runtimeMounts(container: Container, spec: PodSpec): Record<string, MountData> {
  const optional = { readonly: false, required: false };
  return {
    '/proc': kernel('proc'),
    '/dev': kernel('tmpfs'),
    '/dev/pts': kernel('devpts'),
    '/dev/mqueue': kernel('mqueue'),
    '/sys': { ...kernel('sysfs'), readonly: true },
    '/sys/fs/cgroup': { ...kernel('cgroup', 'cgroup2'), readonly: true },
    '/dev/shm': bind(literal(`${sandboxFolder}/shm`), optional),
    '/etc/hosts': bind(`$(copy)${runtimeVolumes.hosts}`, optional),
    '/etc/hostname': bind(`$(copy)${runtimeVolumes.hostname}`, optional),
    '/etc/resolv.conf': bind(`$(copy)${runtimeVolumes.resolver}`, optional),
    [container.terminationMessagePath ?? defaultTerminationPath]: bind(
      `$(copy)${runtimeVolumes.termination}`,
      optional,
    ),
    ...(spec.automountServiceAccountToken === false
      ? {}
      : { [serviceAccountPath]: bind(`$(copy)${runtimeVolumes.serviceAccount}`, { readonly: true, required: false }) }),
  };
}

function kernel(...types: readonly string[]): MountData {
  return { kind: 'kernel', source: `(${types.join('|')})`, readonly: false, required: false };
}

function bind(source: string, flags: { readonly: boolean; required: boolean }): MountData {
  return { kind: 'bind', source, ...flags };
}

function unsupported(kind: string, name: string): SealpodError {
  return new SealpodError('UNSUPPORTED', `volume ${name}: a policy cannot describe ${kind}`, {
    expected: 'emptyDir, configMap, secret, downwardAPI, projected, persistentVolumeClaim or ephemeral',
    actual: kind,
  });
}
