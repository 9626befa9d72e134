import { SealpodError } from '@sealpod/protocol/errors';
import type { PodIdentity } from '@sealpod/protocol/status';
import type { AdaptorConfig } from './config.ts';

/** Of a name in Kubernetes. */
const maxNameCharacters = 253;
const hypervisorPrefix = 'io.katacontainers.config.hypervisor.';

/** What a CreateVM request asks for, within the limits of the configuration. */
export interface VmRequest {
  readonly id: string;
  readonly name: string;
  /** As the shim tells it; used to tell of the pod, never to decide. */
  readonly pod: PodIdentity;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly image: string | undefined;
  readonly netnsPath: string | undefined;
  readonly initdata: Uint8Array | undefined;
}

/**
 * Reads a CreateVM request as a Kata shim sends it: annotations that are empty or do not parse count as absent.
 * Throws REQUEST_FORMAT for an id that could not be a file name, or a shape beyond the limits.
 */
export function parseVmRequest(
  request: {
    readonly id: string;
    readonly annotations: Readonly<Record<string, string>>;
    readonly networkNamespacePath: string;
  },
  config: Pick<AdaptorConfig, 'defaults' | 'limits'>,
): VmRequest {
  const { id, annotations, networkNamespacePath } = request;
  // The id becomes part of paths: letters, digits, and within it also dot, dash and underscore.
  if (!/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$/.test(id)) {
    throw new SealpodError('REQUEST_FORMAT', 'the sandbox id is not a valid name', {
      expected: 'letters, digits, and within it . - _',
      actual: JSON.stringify(id.slice(0, 200)),
    });
  }
  const read = (name: string) => (Object.hasOwn(annotations, name) ? annotations[name] : undefined);
  const vcpus = quantity(read(`${hypervisorPrefix}default_vcpus`)) ?? config.defaults.vcpus;
  const memoryMiB = quantity(read(`${hypervisorPrefix}default_memory`)) ?? config.defaults.memoryMiB;
  if (vcpus > config.limits.vcpus || memoryMiB > config.limits.memoryMiB) {
    throw new SealpodError('REQUEST_FORMAT', 'the pod asks for more than a pod VM may have', {
      expected: `at most ${config.limits.vcpus} processors and ${config.limits.memoryMiB} MiB`,
      actual: `${vcpus} processors and ${memoryMiB} MiB`,
    });
  }
  const initdata = read(`${hypervisorPrefix}cc_init_data`);
  return {
    id,
    name: instanceName(podName(read) || 'pod', id),
    pod: podOf(annotations),
    vcpus,
    memoryMiB,
    image: read(`${hypervisorPrefix}image`) || undefined,
    netnsPath: networkNamespacePath || undefined,
    initdata: initdata ? Buffer.from(initdata, 'utf8') : undefined,
  };
}

/** Rounded up; a shim without a wish sends 0 or nothing, one with a fraction of a processor sends a fraction. */
function quantity(text: string | undefined): number | undefined {
  const value = text && /^\d+(\.\d+)?$/.test(text) ? Math.ceil(Number(text)) : 0;
  return value > 0 ? value : undefined;
}

function podName(read: (name: string) => string | undefined): string {
  const name =
    read('io.kubernetes.cri.sandbox-name') ||
    read('io.kubernetes.cri-o.KubeName') ||
    read('io.kubernetes.cri-o.SandboxName');
  // CRI-O: k8s_<pod>_<namespace>_<uid>_<attempt>.
  const parts = (name ?? '').split('_');
  return (parts[0] === 'k8s' ? parts[1] : name) ?? '';
}

/** Which pod a CreateVM request is for; what the shim does not say is empty. */
export function podOf(annotations: Readonly<Record<string, string>>): PodIdentity {
  const read = (name: string) => (Object.hasOwn(annotations, name) ? annotations[name] : undefined);
  const text = (...names: readonly string[]): string =>
    names.map((name) => read(name)?.slice(0, maxNameCharacters)).find(Boolean) ?? '';
  return {
    name: podName(read).slice(0, maxNameCharacters),
    namespace: text('io.kubernetes.cri.sandbox-namespace', 'io.kubernetes.cri-o.Namespace'),
    uid: text('io.kubernetes.cri.sandbox-uid', 'io.kubernetes.pod.uid'),
  };
}

/** `podvm-<pod>-<first eight of the id>`: lower-case letters, digits and dashes, at most 63. */
function instanceName(pod: string, id: string): string {
  const clean = (text: string) => text.toLowerCase().replace(/[^a-z0-9-]/g, '-');
  const suffix = clean(id.slice(0, 8)).replace(/-+$/, '');
  return `podvm-${clean(pod).slice(0, 63 - 'podvm--'.length - suffix.length)}-${suffix}`;
}
