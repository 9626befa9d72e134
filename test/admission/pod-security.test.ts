import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CreateContainerRequestSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { createRegoEngine } from '@sealpod/rego';
import { afterAll, describe, expect, it } from 'vitest';
import { AgentPolicy } from '../../guest-agent/agent-policy/agent-policy.ts';
import { guestPullStorage } from '../../runtimeclass/shim/mounts/storage.ts';
import { adaptSpecification } from '../../runtimeclass/shim/oci/adapt.ts';
import type { Specification } from '../../runtimeclass/shim/oci/specification.ts';
import { specificationToAgent } from '../../runtimeclass/shim/oci/to-agent.ts';
import { generatePolicy } from '../../workload/agent-policy/policy.ts';
import type { WorkloadImage } from '../../workload/image/image.ts';
import { readManifests, type TemplateInManifest } from '../../workload/kubernetes/manifests.ts';
import type { Container, PodSpec } from '../../workload/kubernetes/types.ts';
import { restrictedViolations } from '../../workload/pod-security.ts';
import { podRefusals } from '../../workload/refusals.ts';
import { fixture, input, type PolicyInput } from '../agent-policy/requests.ts';

/*
 * Kubernetes' own test vectors of the Pod Security Standard "restricted", where its Go module was fetched (building the
 * development cluster does), judged twice: by the generator and the webhook, and by a guest whose policy was made for the
 * standard's base pod while the host asks for the pod of the vector.
 */

const vectors = vectorFolder();
const image: WorkloadImage = {
  reference: `registry.k8s.io/pause@sha256:${'c3'.repeat(32)}`,
  entrypoint: ['/pause'],
  command: [],
  environment: [],
  workingDirectory: '/',
  user: '65535:65535',
};
const privilegedCapabilities = ['CAP_SYS_ADMIN', 'CAP_NET_ADMIN', 'CAP_SYS_MODULE', 'CAP_SYS_PTRACE'];

/** What of Kubernetes' standard says nothing about machines of their own, and is refused by them for other reasons. */
const unsupported: Readonly<Record<string, string>> = {
  base_windows: 'windows',
  seccompprofile_restricted1: 'seccompProfile',
  seccompprofile_restricted2: 'seccompProfile',
  procmount0: 'userNamespace',
  procmount_restricted0: 'userNamespace',
};

function vectorFolder(): string | undefined {
  try {
    const cache = execFileSync('go', ['env', 'GOMODCACHE'], { encoding: 'utf8' }).trim();
    const modules = readdirSync(join(cache, 'k8s.io')).filter((name) => /^pod-security-admission@v0\.37\./.test(name));
    const folder = join(cache, 'k8s.io', modules.sort().at(-1) ?? '', 'test/testdata/restricted/v1.37');
    return existsSync(folder) ? folder : undefined;
  } catch {
    return undefined;
  }
}

function readVector(verdict: 'pass' | 'fail', name: string): TemplateInManifest {
  const { templates } = readManifests(readFileSync(join(vectors ?? '', verdict, name), 'utf8'));
  const [found] = templates;
  if (found === undefined) throw new Error(`${name} has no pod`);
  return found;
}

const names = (verdict: 'pass' | 'fail'): string[] =>
  vectors === undefined ? [] : readdirSync(join(vectors, verdict)).filter((name) => name.endsWith('.yaml'));

/** The first refusal of the generator and the webhook. */
function offline({ owner, template }: TemplateInManifest): string | undefined {
  const spec = template.spec ?? {};
  const refused = podRefusals(spec).map(({ rule }) => rule);
  return [...refused, ...restrictedViolations(spec, owner.metadata.annotations).map(({ field }) => field)][0];
}

/** What kubelet and containerd make of a container: no more than the standard speaks of. */
function hostSpecification(name: string, container: Container, spec: PodSpec): Specification {
  const base = JSON.parse(fixture('bare.main.json')) as Specification;
  const own = container.securityContext;
  const pod = spec.securityContext;
  const privileged = own?.privileged === true;
  const dropped = own?.capabilities?.drop ?? [];
  const added = (own?.capabilities?.add ?? []).map((capability) => `CAP_${capability}`);
  const defaults = base.process?.capabilities?.bounding ?? [];
  const kept = dropped.includes('ALL') ? [] : defaults.filter((item) => !dropped.includes(item.replace('CAP_', '')));
  const capabilities = [...new Set([...kept, ...added, ...(privileged ? privilegedCapabilities : [])])];
  // Where nothing keeps a pod from it, a host may claim that the image's user is root.
  const nonRoot = (own?.runAsNonRoot ?? pod?.runAsNonRoot) === true;
  const wanted = own?.runAsUser ?? pod?.runAsUser;
  const uid = wanted ?? (nonRoot ? 65_535 : 0);
  const gid = wanted === undefined ? 65_535 : 0;
  const unmasked = privileged || own?.procMount === 'Unmasked';
  return {
    ...base,
    process: {
      ...base.process,
      args: ['/pause'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', `HOSTNAME=${name}`],
      user: { uid, gid, additionalGids: [gid] },
      noNewPrivileges: own?.allowPrivilegeEscalation === false && !privileged,
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    },
    mounts: [],
    annotations: { ...base.annotations, 'io.kubernetes.cri.container-name': container.name },
    linux: {
      ...base.linux,
      ...(unmasked ? { maskedPaths: [], readonlyPaths: [] } : {}),
      namespaces: (base.linux?.namespaces ?? []).filter(({ type }) => !(type === 'ipc' && spec.hostIPC === true)),
    },
  };
}

function requestOf(id: string, kind: 'pod_container' | 'pod_sandbox', specification: Specification): PolicyInput {
  const named = { ...specification, annotations: { ...specification.annotations } };
  named.annotations['io.kubernetes.cri.sandbox-id'] = 'sandbox';
  named.annotations['io.kubernetes.cri.sandbox-name'] = 'base';
  if (kind === 'pod_container') named.annotations['io.kubernetes.cri.image-name'] = image.reference;
  const mounts = named.mounts ?? [];
  const adapted = adaptSpecification(named, {
    containerId: id,
    bundle: `/b/${id}`,
    kind,
    mounts,
    disableSeccomp: true,
  });
  return input(CreateContainerRequestSchema, {
    containerId: id,
    storages: [guestPullStorage(id, named, kind)],
    OCI: specificationToAgent(adapted),
  });
}

/** Everything that is asked of the guest for a pod: its sandbox with its kernel settings, then each container. */
function requests(spec: PodSpec): PolicyInput[] {
  const recorded = JSON.parse(fixture('bare.sandbox.json')) as Specification;
  const sysctl = Object.fromEntries((spec.securityContext?.sysctls ?? []).map(({ name, value }) => [name, value]));
  const sandbox = {
    ...recorded,
    mounts: [],
    linux: { ...recorded.linux, sysctl: { ...recorded.linux?.sysctl, ...sysctl } },
  };
  const containers = [...(spec.initContainers ?? []), ...(spec.containers ?? [])].map((container) => {
    const request = requestOf(container.name, 'pod_container', hostSpecification('base', container, spec));
    const { Mounts } = (request as { OCI: { Mounts: unknown[] } }).OCI;
    // Volumes of the vectors are mounted nowhere; here each that the standard speaks against is.
    for (const volume of spec.volumes ?? []) {
      const kind = Object.keys(volume).find((key) => key !== 'name') ?? 'emptyDir';
      if (['emptyDir', 'secret', 'configMap', 'downwardAPI', 'projected', 'persistentVolumeClaim'].includes(kind))
        continue;
      const source = `/var/lib/kubelet/pods/p/volumes/kubernetes.io~${kind}/${volume.name}`;
      Mounts.push({ destination: `/v/${volume.name}`, source, type_: 'bind', options: ['rbind', 'rw'] });
    }
    return request;
  });
  return [requestOf('sandbox', 'pod_sandbox', sandbox), ...containers];
}

const engine = createRegoEngine({ workers: 1, timeoutMs: 10_000 });
afterAll(() => engine.close());

async function policyOf({ owner, template }: TemplateInManifest): Promise<AgentPolicy> {
  const known = { configMaps: new Map(), secrets: new Map() };
  const named = { ...owner, metadata: { ...owner.metadata, name: 'base' } };
  const options = { podSecurity: 'restricted' as const };
  const { policy } = await generatePolicy(named, template, known, async () => image, options);
  return AgentPolicy.create({ engine, policy });
}

/** What the guest refused first, or nothing. */
async function guest(policy: AgentPolicy, asked: readonly PolicyInput[]): Promise<string | undefined> {
  for (const request of asked) {
    const { allowed, prints, failure } = await policy.decide('CreateContainerRequest', request);
    if (!allowed) return prints.join('\n') || failure?.message || 'refused without a word';
  }
  return undefined;
}

const missing = vectors === undefined ? ' (skipped: the Go module k8s.io/pod-security-admission 0.37 is not here)' : '';
describe.skipIf(vectors === undefined)(`S-31: Kubernetes’ vectors of Pod Security restricted${missing}`, () => {
  it('are all there', () => {
    expect(names('fail').length).toBeGreaterThanOrEqual(75);
    expect(names('pass').length).toBeGreaterThanOrEqual(22);
  });

  it.each(names('pass'))('pass/%s', async (name) => {
    const vector = readVector('pass', name);
    const reason = unsupported[name.replace('.yaml', '')];
    expect(restrictedViolations(vector.template.spec ?? {}, vector.owner.metadata.annotations).length > 0).toBe(
      reason === 'windows',
    );
    expect(offline(vector)).toBe(reason);
    if (reason !== undefined) return;
    expect(await guest(await policyOf(vector), requests(vector.template.spec ?? {}))).toBeUndefined();
  });

  it.each(names('fail'))('fail/%s', async (name) => {
    const vector = readVector('fail', name);
    expect(offline(vector)).toBeDefined();
    await expect(policyOf(vector)).rejects.toMatchObject({
      code: expect.stringMatching(/^(UNSUPPORTED|POLICY_DENY)$/),
    });
    // The host asks for it all the same. What it asks is refused, or it never reaches the guest at all.
    const base = readVector('pass', 'base.yaml');
    const asked = requests(vector.template.spec ?? {});
    const refused = await guest(await policyOf(base), asked);
    if (refused === undefined) expect(asked).toEqual(requests(base.template.spec ?? {}));
    else expect(refused).toContain('CreateContainerRequest');
    const felt = /^(allowpriv|capab|hostpath|privileged|procmount\d|restrictedvol|runas|sysctls)/.test(name);
    if (felt) expect(refused).toBeDefined();
  });
});
