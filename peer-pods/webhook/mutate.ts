import { type Container, machineSize, type ObjectMeta, type PodSpec } from '@sealpod/workload';
import type { RuntimeClassConfig } from './config.ts';

/** A pod as the API server sends it. */
export interface Pod {
  readonly metadata?: ObjectMeta;
  readonly spec?: PodSpec;
}

/** One operation of a JSON Patch (RFC 6902). */
export interface PatchOperation {
  readonly op: 'add' | 'replace';
  readonly path: string;
  readonly value: unknown;
}

export const hypervisorPrefix = 'io.katacontainers.config.hypervisor.';
/** Tells containerd which snapshotter an image of the pod is pulled with, until the kubelet says it by itself. */
export const runtimeHandlerAnnotation = 'io.containerd.cri.runtime-handler';
/** What was computed here, so that a later call (reinvocation, after another webhook) may compute it again. */
const sizeAnnotation = 'sealpod.io/machine-size';

/**
 * The patch for a pod of a confidential RuntimeClass: size of its machine and runtime handler as annotations, and the
 * extended resource where the class has one. What the user set stays. Applying it twice changes nothing more.
 *
 * @throws SealpodError REQUEST_FORMAT for a malformed quantity
 */
export function mutatePod(pod: Pod, config: RuntimeClassConfig): PatchOperation[] {
  const annotations = pod.metadata?.annotations;
  const wanted = wantedAnnotations(pod, config);
  const changed = Object.entries(wanted).filter(([key, value]) => annotations?.[key] !== value);
  const patch: PatchOperation[] = [];
  if (annotations === undefined && changed.length > 0)
    patch.push({ op: 'add', path: '/metadata/annotations', value: {} });
  for (const [key, value] of changed) patch.push({ op: 'add', path: `/metadata/annotations/${pointer(key)}`, value });
  return [...patch, ...resourcePatch(pod.spec ?? {}, config)];
}

function wantedAnnotations(pod: Pod, config: RuntimeClassConfig): Record<string, string> {
  const annotations = pod.metadata?.annotations ?? {};
  const ours = new Map(
    (annotations[sizeAnnotation] ?? '').split(',').map((pair) => pair.split('=') as [string, string]),
  );
  const size = machineSize(pod.spec ?? {}, config);
  const wanted: Record<string, string> = { [runtimeHandlerAnnotation]: config.handler };
  const computed: string[] = [];
  for (const [name, value] of [
    ['default_vcpus', size.vcpus],
    ['default_memory', size.memoryMiB],
    ['default_gpus', size.gpus],
  ] as const) {
    const given = annotations[hypervisorPrefix + name];
    // Once the resources are gone there is nothing left to compute from, and what was computed stays.
    if (value === undefined || (given !== undefined && given !== ours.get(name))) {
      if (given !== undefined && given === ours.get(name)) computed.push(`${name}=${given}`);
      continue;
    }
    wanted[hypervisorPrefix + name] = String(value);
    computed.push(`${name}=${value}`);
  }
  if (computed.length > 0) wanted[sizeAnnotation] = computed.join(',');
  return wanted;
}

function resourcePatch(spec: PodSpec, { extendedResource, removeResources }: RuntimeClassConfig): PatchOperation[] {
  const patch: PatchOperation[] = [];
  for (const list of ['containers', 'initContainers'] as const) {
    for (const [index, container] of (spec[list] ?? []).entries()) {
      const isFirst = list === 'containers' && index === 0;
      const resource = isFirst ? extendedResource : undefined;
      const value = changedResources(container, resource, removeResources);
      if (value === undefined) continue;
      const op = container.resources === undefined ? 'add' : 'replace';
      patch.push({ op, path: `/spec/${list}/${index}/resources`, value });
    }
  }
  return patch;
}

/** Undefined where the resources stay as they are. */
function changedResources(
  { resources = {} }: Container,
  extendedResource: string | undefined,
  remove: boolean,
): object | undefined {
  const one = extendedResource === undefined ? {} : { [extendedResource]: '1' };
  const kept = remove ? {} : resources;
  const with_ = (quantities: Readonly<Record<string, string | number>> | undefined) => ({ ...quantities, ...one });
  const changed =
    extendedResource === undefined ? kept : { ...kept, requests: with_(kept.requests), limits: with_(kept.limits) };
  return sameText(changed, resources) ? undefined : changed;
}

function sameText(one: object, other: object): boolean {
  const text = (value: object): string => JSON.stringify(value, (_key, item: unknown) => sorted(item));
  return text(one) === text(other);
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return typeof value === 'number' ? String(value) : value;
  return Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)));
}

/** A member's name in a JSON Pointer (RFC 6901). */
function pointer(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1');
}
