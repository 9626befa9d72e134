import { readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { ImageResolver, WorkloadImage } from '../image/image.ts';
import type { KnownConfiguration } from '../kubernetes/environment.ts';
import { hostnamePattern, literal, type PodOwner, podNamePattern } from '../kubernetes/names.ts';
import { asWritten } from '../kubernetes/stored.ts';
import type { Container, ObjectMeta, PodSpec, PodTemplate } from '../kubernetes/types.ts';
import { restrictedViolations } from '../pod-security.ts';
import { podRefusals } from '../refusals.ts';
import { containerData } from './container.ts';
import type { ContainerData, PolicyData } from './data.ts';
import { volumeNotes } from './persistent-volumes.ts';
import { copiedVolumes } from './volumes.ts';

/** Without these a container could see or change the guest's kernel (OCI runtime-spec's and Kubernetes' defaults). */
const maskedPaths = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
];
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];
/** What containerd sets for every pod (`enable_unprivileged_ports`, `enable_unprivileged_icmp`). */
const defaultSysctls: Readonly<Record<string, readonly string[]>> = {
  'net.ipv4.ip_unprivileged_port_start': ['0'],
  'net.ipv4.ping_group_range': ['0 2147483647'],
};
const dnsLabel = '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?';

/** How strict a policy is made. */
export interface PolicyOptions {
  /** Namespace of the pod where the manifest names none; without it any, the same for all containers. */
  readonly namespace?: string | undefined;
  /** Let the host run any command in the containers, and write to their input. */
  readonly allowExec?: boolean;
  /** Further commands that the host may run, by container. */
  readonly commands?: Readonly<Record<string, readonly (readonly string[])[]>>;
  /** Let the host read what the containers write; default true. */
  readonly allowLogs?: boolean;
  /** Containers that may be added to a running pod (`kubectl debug`); all others are refused. */
  readonly ephemeralContainers?: readonly Container[];
  /** Refuse what Kubernetes' Pod Security Standard "restricted" refuses, here and in the guest. */
  readonly podSecurity?: 'restricted' | undefined;
}

/** A policy, and what it is about. */
export interface GeneratedPolicy {
  readonly policy: string;
  /** By container. */
  readonly images: ReadonlyMap<string, WorkloadImage>;
  /** What the policy does not compare, for the owner to know. */
  readonly notes: readonly string[];
}

/**
 * The agent policy of the pods of one template: everything a host could ask of the guest is refused but what Kubernetes
 * makes of this template.
 *
 * @throws SealpodError UNSUPPORTED, USAGE, POLICY_DENY (Pod Security), IMG_*
 */
export async function generatePolicy(
  owner: PodOwner,
  template: PodTemplate,
  known: KnownConfiguration,
  images: ImageResolver,
  options: PolicyOptions = {},
): Promise<GeneratedPolicy> {
  const ephemeralContainers = options.ephemeralContainers ?? [];
  const spec = { ...asWritten(template.spec ?? {}), ephemeralContainers };
  // A pod has its own name; those of other workloads take labels and annotations of the template.
  const metadata = { ...template.metadata, ...(owner.kind === 'Pod' ? owner.metadata : {}) };
  refuseUnsupported(spec, metadata, options);
  const hostname = hostnamePattern(owner, spec);
  const notes: string[] = [];
  const resolved = new Map<string, WorkloadImage>();
  const containers: Record<string, ContainerData> = {};
  const initContainers = spec.initContainers ?? [];
  const add = async (container: Container, after: readonly string[]): Promise<void> => {
    const image = await images(container.image ?? '');
    resolved.set(container.name, image);
    const data = containerData(container, { spec, owner: owner.kind, metadata, known, hostname, image, after });
    const further = (options.commands?.[container.name] ?? []).map((line) => line.map((text) => ({ equals: text })));
    containers[container.name] = { ...data, commands: [...data.commands, ...further] };
  };
  for (const [index, container] of initContainers.entries())
    await add(
      container,
      initContainers.slice(0, index).map(({ name }) => name),
    );
  for (const container of spec.containers ?? [])
    await add(
      container,
      initContainers.map(({ name }) => name),
    );
  for (const container of ephemeralContainers) {
    if (containers[container.name] !== undefined)
      throw new SealpodError('USAGE', `an ephemeral container has the name of another: ${container.name}`);
    await add(container, []);
  }
  notes.push(...volumeNotes(spec, metadata));
  const namespace = owner.metadata.namespace ?? options.namespace;
  if (namespace === undefined) notes.push('the namespace is not pinned; name one in the manifest or with --namespace');
  const data: PolicyData = {
    pod: {
      name: podNamePattern(owner),
      namespace: namespace === undefined ? `^${dnsLabel}$` : `^${literal(namespace)}$`,
      hostname,
      sysctls: sysctlsOf(spec),
      fs_group: spec.securityContext?.fsGroup ?? null,
      service_links: spec.enableServiceLinks !== false,
      security: options.podSecurity ?? null,
    },
    containers,
    volumes: copiedVolumes(spec, known, notes),
    allow: { exec: options.allowExec === true, logs: options.allowLogs !== false },
    masked_paths: maskedPaths,
    readonly_paths: readonlyPaths,
  };
  return { policy: policyText(data), images: resolved, notes };
}

function sysctlsOf(spec: PodSpec): Record<string, readonly string[]> {
  const own = (spec.securityContext?.sysctls ?? []).map(({ name, value }) => [name, [value]] as const);
  return { ...defaultSysctls, ...Object.fromEntries(own) };
}

function refuseUnsupported(spec: PodSpec, metadata: ObjectMeta, options: PolicyOptions): void {
  const [refusal] = podRefusals(spec);
  if (refusal !== undefined) throw new SealpodError('UNSUPPORTED', refusal.message, { actual: refusal.field });
  if (options.podSecurity === undefined) return;
  const [violation] = restrictedViolations(spec, metadata.annotations);
  if (violation === undefined) return;
  throw new SealpodError('POLICY_DENY', `Pod Security Standard restricted: ${violation.field}`, {
    expected: violation.expected,
    actual: violation.actual,
  });
}

/** The text of a policy: rules that are the same for all pods, and the data of this one. Equal data give equal text. */
export function policyText(data: PolicyData): string {
  const rules = readFileSync(new URL('./rules.rego', import.meta.url), 'utf8');
  return `${rules}\n# ---- The pod\n\npolicy_data := ${JSON.stringify(data, null, 1)}\n`;
}
