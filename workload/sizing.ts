import { ceilingOf, quantityInThousandths } from './kubernetes/quantity.ts';
import type { Container, PodSpec, Quantities, ResourceRequirements } from './kubernetes/types.ts';

/** What a machine has to have for a pod. A member is absent where the pod says nothing about it. */
export interface MachineSize {
  readonly vcpus?: number;
  readonly memoryMiB?: number;
  readonly gpus?: number;
}

export interface SizingOptions {
  /** MiB that the guest itself needs beside the pod, added where the pod has a memory size; default 0. */
  readonly guestMemoryMiB?: number;
  /** Whether `spec.overhead` (of the RuntimeClass) is part of the machine; default true, as the scheduler counts it. */
  readonly includeOverhead?: boolean;
}

const mebibyteInThousandths = (1n << 20n) * 1000n;
const gpu = 'nvidia.com/gpu';

/**
 * The size of the machine that a pod needs, by Kubernetes' own rule for the resources of a pod (KEP-753): what all
 * containers and sidecars need together, or what the neediest init container needs beside the sidecars started before
 * it, whichever is more; and the overhead. For each container its limit counts, or its request where that is more or alone.
 * Of the resources of the pod as a whole (KEP-2837) a limit replaces the sum, for nothing in the pod gets beyond it; a
 * request is the least that the pod gets.
 *
 * @throws SealpodError REQUEST_FORMAT for a malformed quantity
 */
export function machineSize(spec: PodSpec, options: SizingOptions = {}): MachineSize {
  const total = (name: string): bigint => {
    const needed = podNeed(spec, name);
    const overhead = options.includeOverhead === false ? 0n : quantity(spec.overhead, name);
    return needed === 0n ? 0n : needed + overhead;
  };
  const cpu = total('cpu');
  const memory = total('memory');
  const gpus = podNeed(spec, gpu);
  return {
    ...(cpu > 0n ? { vcpus: ceilingOf(cpu, 1000n) } : {}),
    ...(memory > 0n ? { memoryMiB: ceilingOf(memory, mebibyteInThousandths) + (options.guestMemoryMiB ?? 0) } : {}),
    ...(gpus > 0n ? { gpus: ceilingOf(gpus, 1000n) } : {}),
  };
}

/** What the containers of a pod need of a resource at one time, in thousandths, without overhead. */
function podNeed(spec: PodSpec, name: string): bigint {
  const limit = quantity(spec.resources?.limits, name);
  const request = quantity(spec.resources?.requests, name);
  return larger(limit > 0n ? limit : containersNeed(spec, name), request);
}

function containersNeed(spec: PodSpec, name: string): bigint {
  let sidecars = 0n;
  let initialising = 0n;
  for (const container of spec.initContainers ?? []) {
    const needed = need(container.resources, name);
    if (isSidecar(container)) sidecars += needed;
    const atThisTime = isSidecar(container) ? sidecars : sidecars + needed;
    if (atThisTime > initialising) initialising = atThisTime;
  }
  const running = (spec.containers ?? []).reduce((sum, { resources }) => sum + need(resources, name), sidecars);
  return running > initialising ? running : initialising;
}

/** An init container that keeps running beside the others (KEP-753). */
export function isSidecar(container: Container): boolean {
  return container.restartPolicy === 'Always';
}

function need(resources: ResourceRequirements | undefined, name: string): bigint {
  return larger(quantity(resources?.limits, name), quantity(resources?.requests, name));
}

function larger(one: bigint, other: bigint): bigint {
  if (one < other) return other;
  return one;
}

function quantity(quantities: Quantities | undefined, name: string): bigint {
  const value = quantities?.[name];
  return value === undefined ? 0n : quantityInThousandths(value);
}
