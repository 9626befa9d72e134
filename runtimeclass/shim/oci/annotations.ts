import { SealpodError } from '@sealpod/protocol/errors';
import type { Specification } from './specification.ts';

/** What a container is to its pod. */
export type ContainerKind = 'pod_sandbox' | 'pod_container' | 'single_container';

const containerTypeKey = 'io.katacontainers.pkg.oci.container_type';
const bundlePathKey = 'io.katacontainers.pkg.oci.bundle_path';

/** The annotations the shim itself writes: a pod that sets them must not be believed. */
export function isShimAnnotation(key: string): boolean {
  return key === containerTypeKey || key === bundlePathKey;
}

/** The first annotation that is set, in the spelling of containerd or of CRI-O. */
function first(specification: Specification, ...keys: string[]): string {
  for (const key of keys) {
    const value = specification.annotations?.[key];
    if (value !== undefined && value !== '') return value;
  }
  return '';
}

/** Sandbox, container of a sandbox, or (Docker, `ctr run`) a container of its own. */
export function containerKind(specification: Specification): ContainerKind {
  const type = first(specification, 'io.kubernetes.cri.container-type', 'io.kubernetes.cri-o.ContainerType');
  if (type === '') return 'single_container';
  if (type === 'sandbox') return 'pod_sandbox';
  if (type === 'container') return 'pod_container';
  throw new SealpodError('REQUEST_FORMAT', `annotation container-type is ${JSON.stringify(type)}`, {
    expected: 'sandbox or container',
    actual: type,
  });
}

/**
 * The image a container is to run: the reference after the CRI's normalisation. `pause` for a sandbox, whose image is
 * baked into the measured guest.
 *
 * @throws SealpodError UNSUPPORTED where no annotation names it.
 */
export function imageReference(specification: Specification, kind: ContainerKind): string {
  if (kind === 'pod_sandbox') return 'pause';
  const image = first(specification, 'io.kubernetes.cri.image-name', 'io.kubernetes.cri-o.ImageName');
  if (image !== '') return image;
  throw new SealpodError('UNSUPPORTED', 'the container has no annotation io.kubernetes.cri.image-name', {
    fix: 'start it through the CRI (kubelet, `sealpod run`), or set the annotation',
  });
}

/** Pod name, namespace and uid, as the adaptor wants them. */
export function podName(specification: Specification): {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
} {
  return {
    name: first(specification, 'io.kubernetes.cri.sandbox-name', 'io.kubernetes.cri-o.KubeName'),
    namespace: first(specification, 'io.kubernetes.cri.sandbox-namespace', 'io.kubernetes.cri-o.Namespace'),
    uid: first(specification, 'io.kubernetes.cri.sandbox-uid', 'io.kubernetes.pod.uid'),
  };
}
