import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { create, type DescMessage, type MessageInitShape } from '@bufbuild/protobuf';
import { CopyFileRequestSchema, CreateContainerRequestSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { projectRequest } from '../../guest-agent/pod/projection.ts';
import { copyRequests } from '../../runtimeclass/shim/mounts/copy.ts';
import { planMounts } from '../../runtimeclass/shim/mounts/plan.ts';
import { guestPullStorage } from '../../runtimeclass/shim/mounts/storage.ts';
import { adaptSpecification, sharesProcessNamespace } from '../../runtimeclass/shim/oci/adapt.ts';
import { containerKind } from '../../runtimeclass/shim/oci/annotations.ts';
import type { Specification } from '../../runtimeclass/shim/oci/specification.ts';
import { specificationToAgent } from '../../runtimeclass/shim/oci/to-agent.ts';

/** A request as the guest's policy sees it. */
export type PolicyInput = Record<string, unknown>;

/** What a shim asks of the guest for one container. */
export interface ContainerRequests {
  readonly copies: readonly PolicyInput[];
  readonly create: PolicyInput;
}

export const fixture = (name: string): string => readFileSync(new URL(`./recorded/${name}`, import.meta.url), 'utf8');

/** The policy input of a request message. */
export function input<S extends DescMessage>(schema: S, message: MessageInitShape<S>): PolicyInput {
  return JSON.parse(JSON.stringify(projectRequest(schema, create(schema, message)))) as PolicyInput;
}

const version = '..2026_11_24_13_22_11.1234567890';

/** The files of a node that recorded specifications name, as kubelet and containerd lay them out. */
export class NodeFiles {
  readonly folder = mkdtempSync(join(tmpdir(), 'sealpod-node-'));
  readonly #memory = mkdtempSync('/dev/shm/sealpod-node-');
  readonly #volumes: Readonly<Record<string, Readonly<Record<string, string>>>>;

  /** @param volumes content of copied volumes: name → file → text */
  constructor(volumes: Readonly<Record<string, Readonly<Record<string, string>>>>) {
    this.#volumes = volumes;
  }

  /** Makes a mount's source, unless it is there. */
  provide(source: string, destination: string): string {
    const path = source.replace('/node', this.folder);
    rmSync(path, { recursive: true, force: true });
    mkdirSync(dirname(path), { recursive: true });
    const volume = /\/(?:kubernetes\.io~(?:configmap|secret|projected|downward-api))\/([^/]+)$/.exec(path)?.[1];
    const subPath = /\/volume-subpaths\/([^/]+)\/[^/]+\/\d+$/.exec(path)?.[1];
    if (/kubernetes\.io~empty-dir\/mem$/.test(path)) symlinkSync(this.#memory, path);
    else if (volume !== undefined) this.#writeVolume(path, this.#volumes[volume] ?? { token: 'x' });
    else if (subPath === 'conf') writeFileSync(path, this.#volumes['conf']?.['app.conf'] ?? '');
    else if (subPath !== undefined || /empty-dir/.test(path)) mkdirSync(path);
    else writeFileSync(path, `${destination}\n`);
    return path;
  }

  #writeVolume(path: string, files: Readonly<Record<string, string>>): void {
    mkdirSync(join(path, version), { recursive: true });
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(path, version, name), text);
      symlinkSync(`..data/${name}`, join(path, name));
    }
    symlinkSync(version, join(path, '..data'));
  }

  remove(): void {
    for (const folder of [this.folder, this.#memory]) rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * What our shim sends for a recorded specification. The pods were recorded with an image by tag; `image` is the reference
 * by digest that their policy pins, and that containerd would have told.
 */
export async function requestsOf(name: string, id: string, image: string, node: NodeFiles): Promise<ContainerRequests> {
  const recorded = JSON.parse(fixture(`${name}.json`)) as Specification;
  const kind = containerKind(recorded);
  const specification: Specification = {
    ...recorded,
    annotations: {
      ...recorded.annotations,
      ...(kind === 'pod_container' ? { 'io.kubernetes.cri.image-name': image } : {}),
    },
    mounts: (recorded.mounts ?? []).map((mount) =>
      mount.source?.startsWith('/node/') === true
        ? { ...mount, source: node.provide(mount.source, mount.destination ?? '') }
        : mount,
    ),
  };
  const plan = planMounts(id, specification.mounts ?? []);
  const copies: PolicyInput[] = [];
  for (const copy of plan.copies) {
    for await (const request of copyRequests(copy, { copyLimitBytes: 1 << 20, copyLimitEntries: 100 })) {
      copies.push(input(CopyFileRequestSchema, request));
    }
  }
  const adapted = adaptSpecification(specification, {
    containerId: id,
    bundle: `/run/containerd/io.containerd.runtime.v2.task/k8s.io/${id}`,
    kind,
    mounts: plan.mounts,
    disableSeccomp: true,
  });
  const request = input(CreateContainerRequestSchema, {
    containerId: id,
    storages: [guestPullStorage(id, specification, kind), ...plan.storages],
    OCI: specificationToAgent(adapted),
    sandboxPidns: sharesProcessNamespace(specification),
  });
  return { copies, create: request };
}
