import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { defaultConfiguration } from '../configuration.ts';
import { guestPullStorage } from '../mounts/storage.ts';
import { adaptSpecification, sharesProcessNamespace } from './adapt.ts';
import { decodeInitdataAnnotation, hypervisorAnnotations } from './hypervisor-annotations.ts';
import type { Specification } from './specification.ts';
import { processToAgent, resourcesToAgent, specificationToAgent } from './to-agent.ts';

const initdataKey = 'io.katacontainers.config.hypervisor.cc_init_data';
const specification = {
  ociVersion: '1.0.2',
  process: { args: ['/a'], env: ['A=b=c'], cwd: '/', apparmorProfile: 'cri-containerd', selinuxLabel: 'x' },
  hooks: { prestart: [{ path: '/bin/evil' }] },
  annotations: {
    [initdataKey]: 'x',
    'io.kubernetes.cri.image-name': 'example.test/app:1',
    'io.katacontainers.pkg.oci.container_type': 'pod_sandbox',
  },
  mounts: [],
  linux: {
    resources: {
      devices: [{ allow: true }],
      memory: { limit: 2 ** 63 },
      cpu: { shares: 2, cpus: '4-7', mems: '1' },
      pids: { limit: 3 },
      network: { classID: 1 },
    },
    namespaces: [
      { type: 'pid', path: '/proc/7/ns/pid' },
      { type: 'network', path: '/run/netns/x' },
      { type: 'ipc', path: '/proc/7/ns/ipc' },
      { type: 'cgroup' },
      { type: 'mount' },
    ],
    seccomp: { defaultAction: 'SCMP_ACT_ERRNO' },
  },
} as Specification;

const adapt = (disableSeccomp = true) =>
  adaptSpecification(specification, {
    containerId: 'c1',
    bundle: '/b',
    kind: 'pod_container',
    mounts: [],
    disableSeccomp,
  });

test('nothing of the host reaches the guest: hooks, namespaces, labels, seccomp, other cgroup settings, initdata', () => {
  const sent = specificationToAgent(adapt());
  expect(sent.Hooks).toBeUndefined();
  expect(sent.Linux?.Namespaces.map(({ Type, Path }) => [Type, Path])).toEqual([
    ['ipc', ''],
    ['mount', ''],
  ]);
  expect(sent.Linux?.Seccomp).toBeUndefined();
  expect(sent.Linux?.Resources).toMatchObject({
    Devices: [],
    CPU: { Shares: 2n, Cpus: '', Mems: '' },
    Memory: { Limit: 2n ** 63n - 1n },
  });
  expect(sent.Linux?.Resources?.Pids).toBeUndefined();
  expect(sent.Linux?.Resources?.Network).toBeUndefined();
  expect([sent.Process?.ApparmorProfile, sent.Process?.SelinuxLabel]).toEqual(['', '']);
  expect(sent.Root?.Path).toBe('/run/kata-containers/c1/rootfs');
  expect(sent.Annotations).toEqual({
    'io.kubernetes.cri.image-name': 'example.test/app:1',
    'io.katacontainers.pkg.oci.bundle_path': '/b',
    'io.katacontainers.pkg.oci.container_type': 'pod_container',
  });
  expect(specificationToAgent(adapt(false)).Linux?.Seccomp?.DefaultAction).toBe('SCMP_ACT_ERRNO');
  expect(sharesProcessNamespace(specification)).toBe(true);
});

test('an update leaves the processors of the node out too', () => {
  expect(resourcesToAgent({ cpu: { shares: 3, cpus: '4-7', mems: '0' }, memory: { limit: 5 } })).toMatchObject({
    CPU: { Shares: 3n, Cpus: '', Mems: '' },
    Memory: { Limit: 5n },
  });
});

test('limits that JSON rounds beyond 64 bits are the limit again', () => {
  const process = processToAgent({ rlimits: [{ type: 'RLIMIT_NOFILE', hard: 2 ** 64, soft: -1 }] });
  expect(process.Rlimits).toMatchObject([{ Hard: 2n ** 64n - 1n, Soft: 0n }]);
});

test('the image is what the CRI names; a sandbox is always the measured pause; none is refused', () => {
  const storage = guestPullStorage('c1', specification, 'pod_container');
  expect(storage).toMatchObject({
    driver: 'image_guest_pull',
    source: 'example.test/app:1',
    fstype: 'overlay',
    mountPoint: '/run/kata-containers/c1/rootfs',
  });
  const [option = ''] = storage.driverOptions;
  expect(JSON.parse(option.replace('image_guest_pull=', '')).metadata).not.toHaveProperty([initdataKey]);
  expect(guestPullStorage('c1', specification, 'pod_sandbox').source).toBe('pause');
  expect(() => guestPullStorage('c1', {}, 'pod_container')).toThrow(/image-name/);
});

test('initdata is decoded as it is, and refused in any other encoding', () => {
  const text = 'version = "0.1.0"\r\n# ü\n';
  expect(decodeInitdataAnnotation(gzipSync(text).toString('base64'))).toBe(text);
  const bomb = gzipSync(Buffer.alloc(4 * 1024 * 1024)).toString('base64');
  const binary = gzipSync(Buffer.from([0xff, 0xfe])).toString('base64');
  for (const bad of ['', 'not base64', 'YWJj', bomb, binary, `${gzipSync(text).toString('base64')}=`]) {
    expect(() => decodeInitdataAnnotation(bad)).toThrow(/cc_init_data/);
  }
});

test('settings of the machine are forwarded if enabled, and refused if not', () => {
  const prefix = 'io.katacontainers.config.hypervisor.';
  const ask = (annotations: Record<string, string>) => hypervisorAnnotations({ annotations }, defaultConfiguration);
  expect(ask({ [`${prefix}default_vcpus`]: '2' })).toEqual({
    'io.kubernetes.cri.sandbox-name': '',
    'io.kubernetes.cri.sandbox-namespace': '',
    [`${prefix}machine_type`]: '',
    [`${prefix}image`]: '',
    [`${prefix}default_vcpus`]: '2',
    [`${prefix}default_memory`]: '',
    [`${prefix}default_gpus`]: '',
    [`${prefix}default_gpu_model`]: '',
    [`${prefix}cc_init_data`]: '',
  });
  expect(() => ask({ [`${prefix}image`]: 'other' })).toThrow(/is not enabled/);
});
