import { composeInitdata, encodeInitdataAnnotation } from '@sealpod/protocol/initdata';
import { unsupportedFeatures } from '@sealpod/protocol/unsupported';
import { initdataAnnotation, type PodSpec } from '@sealpod/workload';
import { describe, expect, it } from 'vitest';
import { parseWebhookConfig } from './config.ts';
import type { PatchOperation, Pod } from './mutate.ts';
import { reviewMutation, reviewRuntimeClass, reviewValidation } from './review.ts';

const vm = 'kata.peerpods.io/vm';
const config = parseWebhookConfig(
  JSON.stringify({
    certificateFile: '/c',
    keyFile: '/k',
    runtimeClasses: {
      sealpod: { requireInitdata: true, requireDigests: true, limits: { vcpus: 8, memoryMiB: 4096 } },
      'sealpod-peer': { handler: 'sealpod', extendedResource: vm, includeOverhead: false },
      'kata-remote': { extendedResource: vm, removeResources: true, includeOverhead: false },
    },
  }),
  'test',
);
const change = (oldObject: unknown, object: unknown) => {
  const { request, ...rest } = review(object);
  return { ...rest, request: { ...request, operation: 'UPDATE', oldObject } };
};
const review = (object: unknown) => ({
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  request: { uid: 'u', kind: { group: '', version: 'v1', kind: 'Pod' }, operation: 'CREATE', object },
});

/** Applies the operations that the webhook uses (RFC 6902). */
function apply(pod: Pod, patch: readonly PatchOperation[]): Pod {
  const result = structuredClone(pod) as Record<string, unknown>;
  for (const { path, value } of patch) {
    const names = path
      .slice(1)
      .split('/')
      .map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = names.pop() ?? '';
    const parent = names.reduce<Record<string, unknown>>((at, name) => at[name] as Record<string, unknown>, result);
    parent[last] = value;
  }
  return result as Pod;
}

function mutated(pod: Pod): Pod {
  const { response } = reviewMutation(review(pod), config);
  expect(response).toMatchObject({ uid: 'u', allowed: true });
  if (response.patch === undefined) return pod;
  expect(response.patchType).toBe('JSONPatch');
  return apply(pod, JSON.parse(Buffer.from(response.patch, 'base64').toString()) as PatchOperation[]);
}

const prefix = 'io.katacontainers.config.hypervisor.';
function sizeOf({ metadata }: Pod): Record<string, string | undefined> {
  const of = (name: string) => metadata?.annotations?.[prefix + name];
  return { vcpus: of('default_vcpus'), memory: of('default_memory'), gpus: of('default_gpus') };
}

const remote = (spec: Partial<PodSpec>, annotations?: Record<string, string>): Pod => ({
  metadata: { name: 'p', ...(annotations === undefined ? {} : { annotations }) },
  spec: { runtimeClassName: 'kata-remote', containers: [{ name: 'c' }], ...spec },
});
const resources = (requests?: Record<string, string>, limits?: Record<string, string>) => ({
  name: 'c',
  resources: { ...(requests === undefined ? {} : { requests }), ...(limits === undefined ? {} : { limits }) },
});
const one = { requests: { [vm]: '1' }, limits: { [vm]: '1' } };

describe('mutation: the cases of the peer pods webhook', () => {
  it.each([undefined, 'runc', 'kata-qemu'])('leaves RuntimeClass %s alone', (runtimeClassName) => {
    const pod = {
      metadata: { name: 'p' },
      spec: { containers: [{ name: 'c' }], ...(runtimeClassName && { runtimeClassName }) },
    };
    expect(reviewMutation(review(pod), config).response).toEqual({ uid: 'u', allowed: true });
    expect(
      reviewValidation(review({ ...pod, spec: { ...pod.spec, hostNetwork: true } }), config).response.allowed,
    ).toBe(true);
  });

  it.each<[string, Partial<PodSpec>, object]>([
    ['no resources', {}, {}],
    ['a request of processors', { containers: [resources({ cpu: '1' })] }, { vcpus: '1' }],
    ['a limit of processors', { containers: [resources(undefined, { cpu: '2' })] }, { vcpus: '2' }],
    [
      'the limit where it is more than the request',
      { containers: [resources({ cpu: '1' }, { cpu: '3' })] },
      { vcpus: '3' },
    ],
    ['parts of a processor, rounded up', { containers: [resources({ cpu: '1500m' })] }, { vcpus: '2' }],
    ['a request of memory', { containers: [resources({ memory: '512Mi' })] }, { memory: '512' }],
    ['a limit of memory', { containers: [resources({ memory: '1Gi' }, { memory: '2Gi' })] }, { memory: '2048' }],
    ['parts of a MiB, rounded up', { containers: [resources({ memory: '1000001' })] }, { memory: '1' }],
    ['decimal memory', { containers: [resources({ memory: '1G' })] }, { memory: '954' }],
    ['graphics', { containers: [resources(undefined, { 'nvidia.com/gpu': '1' })] }, { gpus: '1' }],
    [
      'several containers, added up',
      { containers: [resources({ cpu: '1', memory: '64Mi' }), resources({ cpu: '1', memory: '64Mi' })] },
      { vcpus: '2', memory: '128' },
    ],
    [
      'init containers: the most of them, not the sum (corrected)',
      { initContainers: [resources({ cpu: '2' }), resources({ cpu: '3' })], containers: [resources({ cpu: '1' })] },
      { vcpus: '3' },
    ],
    [
      'a limit for one resource and a request for another',
      { containers: [resources({ memory: '64Mi' }, { cpu: '2' })] },
      { vcpus: '2', memory: '64' },
    ],
    [
      'storage, huge pages and devices, which are no size',
      { containers: [resources({ 'ephemeral-storage': '1Gi', 'hugepages-2Mi': '2Mi', 'vendor.test/device': '1' })] },
      {},
    ],
    [
      'a request of memory that is more than the limit of another resource says',
      { containers: [resources({ cpu: '100m', memory: '1Gi' }, { cpu: '1' })] },
      { vcpus: '1', memory: '1024' },
    ],
    ['zeros, which ask for nothing', { containers: [resources({ cpu: '0', memory: '0' })] }, {}],
    [
      'resources of the pod as a whole (corrected)',
      { containers: [{ name: 'c' }], resources: { requests: { cpu: '1' }, limits: { cpu: '2', memory: '1Gi' } } },
      { vcpus: '2', memory: '1024' },
    ],
    [
      'a sidecar beside the neediest init container (corrected)',
      {
        initContainers: [{ ...resources({ cpu: '1' }), restartPolicy: 'Always' }, resources({ cpu: '3' })],
        containers: [resources({ cpu: '2' })],
      },
      { vcpus: '4' },
    ],
    [
      'sidecars, added (corrected)',
      {
        initContainers: [{ ...resources({ cpu: '1' }), restartPolicy: 'Always' }],
        containers: [resources({ cpu: '1' })],
      },
      { vcpus: '2' },
    ],
  ])('%s', (_what, spec, size) => {
    const result = mutated(remote(spec));
    expect(sizeOf(result)).toEqual({ vcpus: undefined, memory: undefined, gpus: undefined, ...size });
    // As upstream: resources taken away, one machine instead, on the first container.
    expect(result.spec?.containers?.[0]?.resources).toEqual(one);
    for (const container of [...(result.spec?.containers ?? []).slice(1), ...(result.spec?.initContainers ?? [])]) {
      expect(container.resources ?? {}).toEqual({});
    }
    expect(result.metadata?.annotations?.['io.containerd.cri.runtime-handler']).toBe('kata-remote');
    // Reinvocation changes nothing.
    expect(mutated(result)).toEqual(result);
  });

  it('keeps what the user asked for (corrected)', () => {
    const pod = remote({ containers: [resources({ cpu: '2', memory: '64Mi' })] }, { [`${prefix}default_vcpus`]: '6' });
    expect(sizeOf(mutated(pod))).toMatchObject({ vcpus: '6', memory: '64' });
  });

  it('keeps the resources, and with them the QoS class, where they are of this node', () => {
    const pod = { ...remote({ containers: [resources({ cpu: '1' }, { cpu: '1' })] }) };
    const peer = mutated({ ...pod, spec: { ...pod.spec, runtimeClassName: 'sealpod-peer' } });
    expect(peer.spec?.containers?.[0]?.resources).toEqual({
      requests: { cpu: '1', [vm]: '1' },
      limits: { cpu: '1', [vm]: '1' },
    });
    const local = mutated({ ...pod, spec: { ...pod.spec, runtimeClassName: 'sealpod', overhead: { cpu: '250m' } } });
    expect(local.spec?.containers).toEqual(pod.spec?.containers);
    expect(sizeOf(local)).toMatchObject({ vcpus: '2' });
    expect(local.metadata?.annotations?.['io.containerd.cri.runtime-handler']).toBe('sealpod');
  });

  it('leaves quantities that are none to the API server: the review fails', () => {
    expect(() => reviewMutation(review(remote({ containers: [resources({ cpu: 'much' })] })), config)).toThrow(
      expect.objectContaining({ code: 'REQUEST_FORMAT' }),
    );
  });

  it('computes again what it computed before, when another webhook has added a container', () => {
    const spec = { runtimeClassName: 'sealpod', containers: [resources({ cpu: '1' })] };
    const first = mutated({ metadata: { name: 'p' }, spec });
    const second = mutated({ ...first, spec: { ...spec, containers: [...spec.containers, resources({ cpu: '1' })] } });
    expect([sizeOf(first)['vcpus'], sizeOf(second)['vcpus']]).toEqual(['1', '2']);
  });
});

const initdata = (policy = 'package agent_policy\n') =>
  encodeInitdataAnnotation(composeInitdata({ data: { 'policy.rego': policy } }));
const image = `registry.test/app@sha256:${'a'.repeat(64)}`;
const good: Pod = {
  metadata: { name: 'p', annotations: { [initdataAnnotation]: initdata() } },
  spec: { runtimeClassName: 'sealpod', containers: [{ name: 'c', image }] },
};
const withSpec = (spec: Partial<PodSpec>): Pod => ({ ...good, spec: { ...good.spec, ...spec } });
const withContainer = (more: object): Pod => withSpec({ containers: [{ name: 'c', image, ...more }] });
const withAnnotation = (key: string, value: string): Pod => ({
  ...good,
  metadata: { ...good.metadata, annotations: { ...good.metadata?.annotations, [key]: value } },
});

describe('validation', () => {
  it('admits what the guest can do', () => {
    expect(reviewValidation(review(mutated(good)), config).response).toEqual({ uid: 'u', allowed: true });
  });

  it.each<[string, Pod, string]>([
    ['hostNetwork', withSpec({ hostNetwork: true }), unsupportedFeatures.hostNetwork],
    ['hostPID', withSpec({ hostPID: true }), unsupportedFeatures.hostPID],
    ['hostIPC', withSpec({ hostIPC: true }), unsupportedFeatures.hostIPC],
    ['shareProcessNamespace', withSpec({ shareProcessNamespace: true }), unsupportedFeatures.shareProcessNamespace],
    ['hostPath', withSpec({ volumes: [{ name: 'v', hostPath: { path: '/' } }] }), 'spec.volumes[v].hostPath'],
    ['privileged', withContainer({ securityContext: { privileged: true } }), 'spec.containers[c]'],
    ['allCapabilities', withContainer({ securityContext: { capabilities: { add: ['ALL'] } } }), 'capabilities.add'],
    ['unmaskedProc', withContainer({ securityContext: { procMount: 'Unmasked' } }), 'procMount'],
    ['userNamespace', withSpec({ hostUsers: false }), unsupportedFeatures.userNamespace],
    [
      'seccompProfile',
      withSpec({ securityContext: { seccompProfile: { type: 'Unconfined' } } }),
      'spec.securityContext',
    ],
    ['seccompProfile', withContainer({ securityContext: { seccompProfile: { type: 'Localhost' } } }), 'containers[c]'],
    [
      'appArmorProfile',
      withContainer({ securityContext: { appArmorProfile: { type: 'Localhost' } } }),
      'containers[c]',
    ],
    ['windows', withSpec({ os: { name: 'windows' } }), unsupportedFeatures.windows],
    ['hostPort', withContainer({ ports: [{ hostPort: 80 }] }), 'spec.containers[c].ports'],
    [
      'mountPropagation',
      withContainer({ volumeMounts: [{ name: 'v', mountPath: '/v', mountPropagation: 'Bidirectional' }] }),
      'mountPropagation',
    ],
    ['imageDigest', withContainer({ image: 'registry.test/app:1' }), 'registry.test/app:1'],
    ['initdata', { ...good, metadata: { name: 'p' } }, 'sealpod transform'],
    ['initdata', withAnnotation(initdataAnnotation, 'AAAA'), 'INITDATA_SCHEMA'],
    ['runtimeHandler', withAnnotation('io.containerd.cri.runtime-handler', 'runc'), 'not runc'],
    [
      'hypervisorAnnotation',
      withAnnotation(`${prefix}kernel_params`, 'agent.log=debug'),
      'kernel_params is not enabled',
    ],
    ['machineSize', withAnnotation(`${prefix}default_vcpus`, '9'), 'at most 8 and 4096'],
  ])('S-17: refuses %s by name', (rule, pod, text) => {
    const { allowed, status } = reviewValidation(review(pod), config).response;
    expect(allowed).toBe(false);
    expect(status).toMatchObject({ code: 403, reason: 'Forbidden' });
    expect(status?.message).toMatch(new RegExp(`^${rule}: `));
    expect(status?.message).toContain(text);
  });

  it.each([
    ['default AllowRequestsFailingPolicy := true', false],
    ['AllowRequestsFailingPolicy = true', false],
    ['AllowRequestsFailingPolicy if 1 == 1', false],
    ['default AllowRequestsFailingPolicy := false', true],
  ])('G-17: an agent policy with %j', (line, allowed) => {
    const pod = withAnnotation(initdataAnnotation, initdata(`package agent_policy\n${line}\n`));
    const { response } = reviewValidation(review(pod), config);
    expect(response.allowed).toBe(allowed);
    if (!allowed) expect(response.status?.message).toContain('debugPolicy: the policy sets AllowRequestsFailingPolicy');
  });

  it('a change: what was so before may stay, what it brings in is refused', () => {
    const before = withSpec({ hostNetwork: true });
    const labelled = { ...before, metadata: { ...before.metadata, labels: { a: 'b' }, finalizers: [] } };
    const ask = (object: Pod) => reviewValidation(change(before, object), config).response;
    expect(ask(labelled)).toEqual({ uid: 'u', allowed: true });
    const debug = { name: 'debug', image: 'debug:1' };
    expect(ask({ ...labelled, spec: { ...labelled.spec, ephemeralContainers: [debug] } }).status?.message).toMatch(
      /^imageDigest: .*spec\.ephemeralContainers\[debug\]/,
    );
    const swapped = {
      ...labelled,
      spec: { ...labelled.spec, containers: [{ name: 'c', image: 'registry.test/app:2' }] },
    };
    expect(ask(swapped).status?.message).toMatch(/^imageDigest: /);
    // Without what was before it is as good as new.
    expect(reviewValidation(change(undefined, labelled), config).response.allowed).toBe(false);
  });

  it('a resize: within the machine, or to less', () => {
    const size = (memory: string): Partial<PodSpec> => ({
      containers: [{ name: 'c', image, resources: { limits: { memory } } }],
    });
    const running = mutated(withSpec(size('256Mi')));
    const ask = (memory: string, of: Pod = running) =>
      reviewValidation(change(of, { ...of, spec: { ...of.spec, ...size(memory) } }), config).response;
    expect(ask('64Mi').allowed).toBe(true);
    expect(ask('256Mi').allowed).toBe(true);
    expect(ask('512Mi').status?.message).toContain(
      'machineSize: the machine of the pod has 256 MiB and cannot get 512',
    );
    // Nobody knows here how large a machine is that was made without a word about its size.
    expect(ask('512Mi', withSpec({})).allowed).toBe(true);
  });

  it('S-30: gives the default class to pods of confidential namespaces that name none', () => {
    const pod = { metadata: { name: 'p' }, spec: { containers: [{ name: 'c' }] } };
    const ask = (object: Pod, byDefault?: string) =>
      reviewRuntimeClass(review(object), {
        ...config,
        ...(byDefault === undefined ? {} : { defaultRuntimeClass: byDefault }),
      }).response;
    const { patch } = ask(pod, 'sealpod');
    expect(JSON.parse(Buffer.from(patch ?? '', 'base64').toString())).toEqual([
      { op: 'add', path: '/spec/runtimeClassName', value: 'sealpod' },
    ]);
    expect(ask(pod)).toEqual({ uid: 'u', allowed: true });
    expect(ask({ ...pod, spec: { ...pod.spec, runtimeClassName: 'runc' } }, 'sealpod')).toEqual({
      uid: 'u',
      allowed: true,
    });
  });

  it('looks at ephemeral and init containers too', () => {
    const privileged = { name: 'e', image, securityContext: { privileged: true } };
    for (const list of ['ephemeralContainers', 'initContainers']) {
      const { status } = reviewValidation(review(withSpec({ [list]: [privileged] })), config).response;
      expect(status?.message).toContain(`spec.${list}[e]`);
    }
  });

  it.each([
    null,
    1,
    {},
    { kind: 'AdmissionReview' },
    { ...review(good), apiVersion: 'admission.k8s.io/v1beta1' },
    review(null),
  ])('is no review: %j', (body) => {
    for (const answer of [reviewMutation, reviewValidation]) {
      expect(() => answer(body, config)).toThrow(expect.objectContaining({ code: 'REQUEST_FORMAT' }));
    }
  });
});

describe('configuration', () => {
  const base = { certificateFile: '/c', keyFile: '/k', runtimeClasses: { sealpod: {} } };
  it.each([
    ['no classes', { ...base, runtimeClasses: {} }],
    ['an unknown member', { ...base, other: 1 }],
    ['an unknown member of a class', { ...base, runtimeClasses: { sealpod: { other: 1 } } }],
    ['no certificate', { ...base, certificateFile: undefined }],
    ['a port below zero', { ...base, port: -1 }],
    ['a flag as text', { ...base, runtimeClasses: { sealpod: { requireDigests: 'yes' } } }],
    ['a default class that is not configured', { ...base, defaultRuntimeClass: 'other' }],
    ['limits without meaning', { ...base, runtimeClasses: { sealpod: { limits: { gpus: 1 } } } }],
  ])('refuses %s', (_what, document) => {
    expect(() => parseWebhookConfig(JSON.stringify(document), 'f')).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});
