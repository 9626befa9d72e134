import { createHash, randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { KbsClient } from '@sealpod/kbs-client';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { NamespaceMode } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import { encodeInitdataAnnotation } from '@sealpod/protocol/initdata';
import { isReasonCode } from '@sealpod/protocol/reason-codes';
import type { CriClient } from '@sealpod/runtimeclass/cri';
import { workloadInitdata } from '@sealpod/workload';
import { addReferenceValue } from '../commands/reference-value.ts';
import type { Layout } from '../development/layout.ts';
import type { EnvironmentState } from '../development/state.ts';
import { agentPolicy } from './agent-policy.ts';

/** A pod of one container, as `sealpod run` starts it. */
export interface PodRequest {
  readonly name: string;
  /** The image by digest: `host:port/repository@sha256:…`. */
  readonly image: string;
  /** The whole command; where empty, that of the image. */
  readonly args: readonly string[];
  /** `NAME=value` */
  readonly environment: readonly string[];
  readonly allowExec: boolean;
  readonly memoryMiB?: number;
  readonly vcpus?: number;
  /** Name of the pod VM image; default: the adaptor's. */
  readonly podVmImage?: string;
  /** PEM of the key broker's certificate that the guest is to pin. */
  readonly kbsCertificatePem: string;
  readonly kbsUrl: string;
}

/** A started pod. */
export interface RunningPod {
  readonly sandboxId: string;
  readonly containerId: string;
  readonly logFile: string;
}

/** As the kubelet sets it: a network of the pod, processes of the container. */
const namespaceOptions = { network: NamespaceMode.POD, pid: NamespaceMode.CONTAINER, ipc: NamespaceMode.POD } as const;
/** What a kubelet hides from a container, and keeps it from writing to. */
const maskedPaths = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];
const annotationPrefix = 'io.katacontainers.config.hypervisor';

/** The initdata of a pod: what its guest is told, and may do. */
export function initdataOf(request: PodRequest): string {
  const { toml } = workloadInitdata({
    kbs: { url: request.kbsUrl, certificatePem: request.kbsCertificatePem },
    plainHttpRegistries: [request.image.split('/')[0] ?? ''],
    images: [request.image],
    agentPolicy: agentPolicy({
      containers: [{ image: request.image, args: request.args }],
      allowExec: request.allowExec,
    }),
  });
  return toml;
}

/** Registers the digest of an initdata document: the owner's word that a guest told so may have secrets. */
export async function enrolInitdata(client: KbsClient, initdata: string): Promise<string> {
  const digest = createHash('sha256').update(initdata).digest('hex');
  await addReferenceValue(client, 'tpm_initdata', digest);
  return digest;
}

/**
 * Runs a pod through the container runtime interface, as a kubelet does: sandbox (which boots the machine), image
 * (manifest and configuration only), container.
 *
 * @throws SealpodError with the code that guest or adaptor gave; the sandbox is removed again
 */
export async function runPod(
  cri: CriClient,
  layout: Layout,
  state: EnvironmentState,
  request: PodRequest,
  initdata: string,
  stage: <T>(name: string, run: () => Promise<T>) => Promise<T>,
): Promise<RunningPod> {
  const uid = randomUUID();
  const logDirectory = join(layout.home, 'pods', uid);
  mkdirSync(logDirectory, { recursive: true, mode: 0o700 });
  const metadata = { name: request.name, uid, namespace: 'default', attempt: 0 };
  const annotations: Record<string, string> = {
    [`${annotationPrefix}.cc_init_data`]: encodeInitdataAnnotation(initdata),
  };
  if (request.podVmImage !== undefined) annotations[`${annotationPrefix}.image`] = request.podVmImage;
  if (request.memoryMiB !== undefined) annotations[`${annotationPrefix}.default_memory`] = String(request.memoryMiB);
  if (request.vcpus !== undefined) annotations[`${annotationPrefix}.default_vcpus`] = String(request.vcpus);
  const config = {
    metadata,
    hostname: request.name,
    logDirectory,
    dnsConfig: { servers: [state.address] },
    annotations,
    labels: { 'sealpod.pod': request.name },
    linux: { securityContext: { namespaceOptions } },
  };
  const { podSandboxId: sandboxId } = await stage('machine boots', () =>
    cri.runtime.runPodSandbox({ config, runtimeHandler: 'sealpod' }),
  ).catch(refuse);
  try {
    await stage('image manifest', () => pullSoleReference(cri, request.image, config));
    const containerConfig = {
      metadata: { name: request.name, attempt: 0 },
      image: { image: request.image, userSpecifiedImage: request.image },
      // Replaces entry point and arguments of the image: the agent policy pins the whole command.
      command: [...request.args],
      envs: request.environment.map(variable),
      logPath: `${request.name}.log`,
      linux: { securityContext: { namespaceOptions, maskedPaths, readonlyPaths } },
    };
    const { containerId } = await cri.runtime.createContainer({
      podSandboxId: sandboxId,
      config: containerConfig,
      sandboxConfig: config,
    });
    await stage('attestation, image, container', () => cri.runtime.startContainer({ containerId }));
    return { sandboxId, containerId, logFile: join(logDirectory, `${request.name}.log`) };
  } catch (error) {
    await removePod(cri, sandboxId);
    return refuse(error);
  }
}

/**
 * Pulls an image and sees to it that containerd knows it by this reference alone. Images with one configuration (the
 * same image encrypted twice, or in plain) share an id, and containerd 1.6 tells the runtime any of their names.
 */
async function pullSoleReference(
  cri: CriClient,
  reference: string,
  sandboxConfig: { readonly annotations: Record<string, string> },
): Promise<void> {
  const pull = () => cri.images.pullImage({ image: { image: reference }, sandboxConfig });
  await pull();
  const { image } = await cri.images.imageStatus({ image: { image: reference } });
  const names = [...(image?.repoDigests ?? []), ...(image?.repoTags ?? [])];
  if (image === undefined || names.every((name) => name === reference)) return;
  await cri.images.removeImage({ image: { image: image.id } });
  await pull();
}

/** Stops and removes a pod with its machine. */
export async function removePod(cri: CriClient, sandboxId: string): Promise<void> {
  await cri.runtime.stopPodSandbox({ podSandboxId: sandboxId });
  await cri.runtime.removePodSandbox({ podSandboxId: sandboxId });
}

/** Reads `NAME=value`. @throws SealpodError USAGE */
export function variable(text: string): { readonly key: string; readonly value: string } {
  const at = text.indexOf('=');
  if (at < 1) throw new SealpodError('USAGE', 'not an environment variable', { expected: 'NAME=value', actual: text });
  return { key: text.slice(0, at), value: text.slice(at + 1) };
}

/** Finds the code and correlation id that guest and shim put into the text of a CRI error. */
function refuse(thrown: unknown): never {
  const error = asSealpodError(thrown);
  const text = error.message;
  const code =
    /\b((?:EV|RV|IMG|RES|KBS|INITDATA|POLICY|AGENT|SESSION|TOKEN)_[A-Z_]+|HYPERVISOR|NETWORK|PROVIDER_IMAGE)\b/.exec(
      text,
    )?.[1];
  const correlationId = /correlation(?: id)? ([0-9a-f-]{16,})/.exec(text)?.[1];
  throw new SealpodError(code !== undefined && isReasonCode(code) ? code : error.code, text, {
    cause: error.cause,
    ...(correlationId === undefined ? {} : { correlationId }),
  });
}
