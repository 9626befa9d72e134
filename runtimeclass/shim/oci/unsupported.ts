import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { type UnsupportedFeature, unsupportedFeatures } from '@sealpod/protocol/unsupported';
import { readDirectVolume } from '../volumes/direct-volume.ts';
import type { ContainerKind } from './annotations.ts';
import type { MountSpecification, Specification } from './specification.ts';

function refuse(feature: UnsupportedFeature): SealpodError {
  return new SealpodError('UNSUPPORTED', unsupportedFeatures[feature], { fix: 'remove it from the pod' });
}

/** Kinds of volumes that the guest can have: it makes them itself, or gets a copy. */
const volumeKinds = ['configmap', 'secret', 'projected', 'downward-api', 'empty-dir'];

/**
 * Refuses what a pod in a machine of its own cannot have. For a sandbox this is before the machine is asked for, so that
 * the pod's event says so at once.
 *
 * @throws SealpodError UNSUPPORTED
 */
export function refuseUnsupported(specification: Specification, kind: ContainerKind): void {
  // The CRI gives every pod a name of its own; what `ctr` runs is no pod.
  if (specification.annotations?.['io.kubernetes.cri.sandbox-uid'] === undefined) return;
  if (kind === 'pod_sandbox') {
    const types = new Set((specification.linux?.namespaces ?? []).map(({ type }) => type));
    if (!types.has('network')) throw refuse('hostNetwork');
    if (!types.has('pid')) throw refuse('hostPID');
    if (!types.has('ipc')) throw refuse('hostIPC');
    return;
  }
  // The CRI says nowhere else that a container is privileged: it alone may write to /sys.
  const system = (specification.mounts ?? []).find(({ destination }) => destination === '/sys');
  if (system !== undefined && !(system.options ?? []).includes('ro')) throw refuse('privileged');
  for (const mount of specification.mounts ?? []) refuseForeignSource(mount, specification);
}

/**
 * Everything that Kubernetes means for the pod alone lies in the pod's folder of the kubelet, or in containerd's folder of
 * the sandbox or container. What comes from elsewhere is a folder of the node.
 */
function refuseForeignSource(
  { source = '', destination = '', type, options = [] }: MountSpecification,
  specification: Specification,
): void {
  const uid = specification.annotations?.['io.kubernetes.cri.sandbox-uid'] ?? '';
  const sandbox = specification.annotations?.['io.kubernetes.cri.sandbox-id'] ?? '';
  const bind = type === 'bind' || options.some((option) => option === 'bind' || option === 'rbind');
  if (!bind || uid === '' || sandbox === '' || destination === '/dev/shm') return;
  if (source.includes(`/sandboxes/${sandbox}/`) || /\/containers\/[0-9a-f]{64}\/volumes\//.test(source)) return;
  const [, podFolder = '', inPod] = new RegExp(`^(.*/pods/${uid})/(.+)$`).exec(source) ?? [];
  if (inPod === undefined) throw refuse('hostPath');
  const [area, name = ''] = inPod.split('/');
  if (area === 'etc-hosts' || area === 'containers') return;
  const isKind = (kind: string, volume: string) =>
    existsSync(join(podFolder, 'volumes', `kubernetes.io~${kind}`, volume));
  if (area === 'volumes' && volumeKinds.some((kind) => name === `kubernetes.io~${kind}`)) return;
  // Its driver left it unmounted, for the guest to mount.
  if (area === 'volumes' && readDirectVolume(source) !== undefined) return;
  const copied = volumeKinds.filter((kind) => kind !== 'empty-dir');
  if (area === 'volume-subpaths' && copied.some((kind) => isKind(kind, name))) return;
  const what = area === 'volume-subpaths' ? `a part (subPath) of volume ${name}` : `a volume of kind ${name}`;
  throw new SealpodError('UNSUPPORTED', `${what} at ${destination} is not supported: writes would not reach it`, {
    expected: `a volume of kind ${volumeKinds.join(', ')}; subPath of all but emptyDir; a persistent volume that its driver hands over unmounted`,
    actual: source,
    fix:
      area === 'volumes'
        ? 'claim it with volumeMode: Block and name it in volumeDevices, or use a storage driver that leaves direct volumes'
        : 'mount the volume as a whole',
  });
}
