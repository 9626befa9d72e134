import { SealpodError } from '@sealpod/protocol/errors';
import { noVolumeKey, parseVolumeKeys, volumeKeysAnnotation } from '@sealpod/protocol/volume-keys';
import type { ObjectMeta, PodSpec, Volume, VolumeMount } from '../kubernetes/types.ts';
import type { PersistentVolumeData } from './data.ts';

/** Keys of a pod's persistent volumes, by their path in the containers. @throws SealpodError USAGE */
export function volumeKeys({ annotations }: ObjectMeta): ReadonlyMap<string, string> {
  try {
    return parseVolumeKeys(annotations?.[volumeKeysAnnotation]);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError)) throw thrown;
    throw new SealpodError('USAGE', thrown.message, { ...thrown.detail, cause: thrown });
  }
}

/** Whether a volume is a disk that outlives the container: one that is claimed, before or for the pod. */
export function isPersistent(volume: Volume): boolean {
  return volume.persistentVolumeClaim !== undefined || volume.ephemeral !== undefined;
}

/**
 * What a container may have of a persistent volume. Whoever makes the policy says of each volume by what key it is
 * encrypted, or that it is not: a volume is never open by oversight.
 *
 * @throws SealpodError UNSUPPORTED for a part of a volume, USAGE for a volume of which nothing is said
 */
export function persistentVolume(
  kind: PersistentVolumeData['kind'],
  volume: Volume,
  mount: Pick<VolumeMount, 'mountPath' | 'subPath' | 'subPathExpr'>,
  keys: ReadonlyMap<string, string>,
): PersistentVolumeData {
  if ((mount.subPath ?? mount.subPathExpr ?? '') !== '') {
    throw new SealpodError(
      'UNSUPPORTED',
      `volume ${volume.name}: a part (subPath) of a persistent volume cannot be mounted`,
      {
        fix: 'mount the volume as a whole',
      },
    );
  }
  const key = keys.get(mount.mountPath);
  if (key === undefined) {
    throw new SealpodError('USAGE', `volume ${volume.name} at ${mount.mountPath}: nothing says how it is encrypted`, {
      fix: `annotate the pod template with ${volumeKeysAnnotation}: '{"${mount.mountPath}": "kbs:///default/volume-key/${volume.name}"}', or with "none" for a volume that the host may read and change`,
    });
  }
  return { kind, key: key === noVolumeKey ? null : key };
}

/** What a policy cannot promise of the pod's persistent volumes. */
export function volumeNotes(spec: PodSpec, metadata: ObjectMeta): string[] {
  const keys = volumeKeys(metadata);
  const paths = [...(spec.initContainers ?? []), ...(spec.containers ?? [])].flatMap((container) => [
    ...(container.volumeMounts ?? []).map(({ mountPath }) => mountPath),
    ...(container.volumeDevices ?? []).map(({ devicePath }) => devicePath),
  ]);
  return [...new Set(paths)]
    .filter((path) => keys.get(path) === noVolumeKey)
    .map((path) => `volume at ${path}: it is not encrypted, the host can read and change it`);
}
