import { create } from '@bufbuild/protobuf';
import { CreateContainerRequestSchema, DeviceSchema, StorageSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { volumeKeysAnnotation } from '@sealpod/protocol/volume-keys';
import { createRegoEngine } from '@sealpod/rego';
import { afterAll, describe, expect, it } from 'vitest';
import { AgentPolicy } from '../../guest-agent/agent-policy/agent-policy.ts';
import { generatePolicy } from '../../workload/agent-policy/policy.ts';
import type { WorkloadImage } from '../../workload/image/image.ts';
import { readManifests } from '../../workload/kubernetes/manifests.ts';
import { fixture, input, NodeFiles, type PolicyInput, requestsOf } from './requests.ts';

/*
 * Persistent volumes in generated policies: the recorded pod "bare" with a claim of each kind added, as our shim hands them
 * over. Each member of the hand-over is then changed.
 */

const image: WorkloadImage = {
  reference: `localhost/app@sha256:${'b3'.repeat(32)}`,
  entrypoint: ['/bin/sh', '-c', 'sleep 3600'],
  command: [],
  environment: ['PATH=/bin', 'FROM_IMAGE=yes'],
  workingDirectory: '',
  user: '',
};
const engine = createRegoEngine({ workers: 1, timeoutMs: 10_000 });
const node = new NodeFiles({});
afterAll(async () => {
  node.remove();
  await engine.close();
});

const keys = {
  '/data': 'kbs:///default/volume-key/$(name)',
  '/open': 'none',
  '/dev/raw': 'kbs:///default/volume-key/raw',
};

async function policyOf(volumeKeys: object | undefined, more: { subPath?: string } = {}) {
  const { templates, configuration } = readManifests(fixture('pods.yaml'));
  const found = templates.find(({ owner }) => owner.metadata.name === 'bare');
  const [container] = found?.template.spec?.containers ?? [];
  if (found === undefined || container === undefined) throw new Error('no pod bare');
  const annotations = volumeKeys === undefined ? {} : { [volumeKeysAnnotation]: JSON.stringify(volumeKeys) };
  const owner = { ...found.owner, metadata: { ...found.owner.metadata, annotations } };
  const spec = {
    ...found.template.spec,
    volumes: [
      ...(found.template.spec?.volumes ?? []),
      ...['data', 'open', 'raw'].map((name) => ({ name, persistentVolumeClaim: { claimName: name } })),
    ],
    containers: [
      {
        ...container,
        volumeMounts: [
          ...(container.volumeMounts ?? []),
          { name: 'data', mountPath: '/data', ...more },
          { name: 'open', mountPath: '/open', readOnly: true },
        ],
        volumeDevices: [{ name: 'raw', devicePath: '/dev/raw' }],
      },
    ],
  };
  return generatePolicy(owner, { ...found.template, spec }, configuration, async () => image, { namespace: 'default' });
}

const volumeFolder = '/run/kata-containers/sandbox/storage/L3BvZHMvMS9tb3VudA==';
const otherFolder = '/run/kata-containers/sandbox/storage/L3BvZHMvMi9tb3VudA==';

/** What the shim asks for the container, its volumes plugged in. */
async function request(): Promise<PolicyInput> {
  const { create: recorded } = await requestsOf('bare.main', 'idmain', image.reference, node);
  const storage = (source: string, mountPoint: string, key?: string) =>
    create(StorageSchema, {
      driver: 'scsi',
      source,
      fstype: 'ext4',
      options: ['noatime'],
      driverOptions: ['serial=abc', ...(key === undefined ? [] : [`encryption_key=${key}`])],
      mountPoint,
    });
  const added = input(CreateContainerRequestSchema, {
    storages: [storage('0:0', volumeFolder, 'kbs:///default/volume-key/bare'), storage('0:1', otherFolder)],
    devices: [
      create(DeviceSchema, {
        id: '0:2',
        type: 'scsi',
        containerPath: '/dev/raw',
        options: ['serial=abc', 'encryption_key=kbs:///default/volume-key/raw'],
      }),
    ],
    OCI: {
      Linux: { Devices: [{ Path: '/dev/raw', Type: 'b', Major: 7n, Minor: 3n, FileMode: 0o660 }] },
      Mounts: [
        { destination: '/data', source: volumeFolder, type: 'bind', options: ['rbind', 'rprivate', 'rw'] },
        { destination: '/open', source: otherFolder, type: 'bind', options: ['rbind', 'rprivate', 'ro'] },
      ],
    },
  }) as Shape;
  const merged = structuredClone(recorded) as Shape;
  merged.storages.push(...added.storages);
  merged.devices.push(...added.devices);
  merged.OCI.Mounts.push(...added.OCI.Mounts);
  merged.OCI.Linux.Devices.push(...added.OCI.Linux.Devices);
  return merged;
}

interface Shape extends PolicyInput {
  storages: Record<string, unknown>[];
  devices: Record<string, unknown>[];
  OCI: { Mounts: Record<string, unknown>[]; Linux: { Devices: Record<string, unknown>[] } };
}

async function decide(change: (request: Shape) => void, volumeKeys: object = keys): Promise<string> {
  const { policy } = await policyOf(volumeKeys);
  const agent = await startedAgent(policy);
  const asked = (await request()) as Shape;
  change(asked);
  const { allowed, prints, failure } = await agent.decide('CreateContainerRequest', asked);
  return allowed ? 'allowed' : `${prints.join('\n')}${failure?.message ?? ''}`;
}

/** A guest whose sandbox is up, as far as its policy knows. */
async function startedAgent(policy: string): Promise<AgentPolicy> {
  const agent = await AgentPolicy.create({ engine, policy });
  const id = (JSON.parse(fixture('bare.sandbox.json')) as { annotations: Record<string, string> }).annotations[
    'io.kubernetes.cri.sandbox-id'
  ];
  const sandbox = await requestsOf('bare.sandbox', id ?? '', image.reference, node);
  await agent.decide('CreateContainerRequest', sandbox.create);
  return agent;
}

const found = (list: Record<string, unknown>[], member: string, value: unknown): Record<string, unknown> => {
  const item = list.find((candidate) => candidate[member] === value);
  if (item === undefined) throw new Error(`nothing has ${member} ${String(value)}`);
  return item;
};
const volume = (asked: Shape) => found(asked.storages, 'mount_point', volumeFolder);

describe('claims of persistent volumes', () => {
  it('are allowed as the pod has them', async () => {
    expect(await decide(() => undefined)).toBe('allowed');
  });

  it.each<readonly [string, (asked: Shape) => void, RegExp]>([
    [
      'encryption dropped',
      (asked) => Object.assign(volume(asked), { driver_options: ['serial=abc'] }),
      /storages\[\/data\]\.encryption_key/,
    ],
    [
      'the key of another volume',
      (asked) => Object.assign(volume(asked), { driver_options: ['encryption_key=kbs:///default/volume-key/raw'] }),
      /storages\[\/data\]\.encryption_key: expected \["kbs:\/\/\/default\/volume-key\/bare"\], actual \["kbs:\/\/\/default\/volume-key\/raw"\]/,
    ],
    [
      'two keys',
      (asked) =>
        Object.assign(volume(asked), {
          driver_options: ['encryption_key=kbs:///default/volume-key/bare', 'encryption_key=x'],
        }),
      /encryption_key/,
    ],
    [
      'a key for a volume that has none',
      (asked) =>
        Object.assign(found(asked.storages, 'mount_point', otherFolder), { driver_options: ['encryption_key=x'] }),
      /storages\[\/open\]\.encryption_key/,
    ],
    [
      'a folder of the guest in its place',
      (asked) => Object.assign(volume(asked), { driver: 'local', source: 'local', fstype: 'local' }),
      /storages\[\/data\]\.driver/,
    ],
    [
      'memory in its place',
      (asked) => Object.assign(volume(asked), { driver: 'ephemeral' }),
      /storages\[\/data\]\.driver/,
    ],
    ['another file system', (asked) => Object.assign(volume(asked), { fstype: 'xfs' }), /storages\[\/data\]\.fstype/],
    [
      'a device of the guest by its path',
      (asked) => Object.assign(volume(asked), { source: '/dev/vda' }),
      /storages\[\/data\]\.source/,
    ],
    ['another option', (asked) => Object.assign(volume(asked), { options: ['suid'] }), /storages\[\/data\]\.options/],
    ['another group', (asked) => Object.assign(volume(asked), { options: ['fsgid=7'] }), /storages\[\/data\]\.options/],
    [
      'another driver option',
      (asked) =>
        Object.assign(volume(asked), { driver_options: ['encryption_key=kbs:///default/volume-key/bare', 'x=y'] }),
      /storages\[\/data\]\.driver_options/,
    ],
    ['shared', (asked) => Object.assign(volume(asked), { shared: true }), /storages\[\/data\]\.shared/],
    [
      'the volume left out',
      (asked) => asked.storages.splice(asked.storages.indexOf(volume(asked)), 1),
      /storages\[\/data\]: expected "one persistent volume"/,
    ],
    [
      'a further volume',
      (asked) => asked.storages.push({ ...volume(asked), mount_point: '/run/kata-containers/sandbox/storage/x' }),
      /storages\[\/run/,
    ],
    [
      'the mount elsewhere',
      (asked) =>
        Object.assign(found(asked.OCI.Mounts, 'destination', '/data'), { source: '/run/kata-containers/other' }),
      /OCI\.Mounts\[\/data\]\.source/,
    ],
    [
      'writable where the pod reads',
      (asked) => Object.assign(found(asked.OCI.Mounts, 'destination', '/open'), { options: ['rbind', 'rw'] }),
      /OCI\.Mounts\[\/open\]\.options/,
    ],
    ['the device dropped', (asked) => asked.devices.splice(0), /devices\[\/dev\/raw\]/],
    ['the device without its place', (asked) => asked.OCI.Linux.Devices.splice(0), /devices\[\/dev\/raw\]/],
    [
      'a device the pod does not name',
      (asked) => asked.devices.push({ ...asked.devices[0], container_path: '/dev/sda' }),
      /devices\[\/dev\/sda\]/,
    ],
    [
      'a node the pod does not name',
      (asked) => asked.OCI.Linux.Devices.push({ ...asked.OCI.Linux.Devices[0], Path: '/dev/mem' }),
      /OCI\.Linux\.Devices\[\/dev\/mem\]/,
    ],
    [
      'a character device',
      (asked) => Object.assign(asked.OCI.Linux.Devices[0] ?? {}, { Type: 'c' }),
      /devices\[\/dev\/raw\]/,
    ],
    [
      'the device without encryption',
      (asked) => Object.assign(asked.devices[0] ?? {}, { options: [] }),
      /devices\[\/dev\/raw\]\.encryption_key/,
    ],
    [
      'another type of device',
      (asked) => Object.assign(asked.devices[0] ?? {}, { type_: 'vfio-pci' }),
      /devices\[\/dev\/raw\]\.type/,
    ],
  ])('refused by name: %s', async (_what, change, reason) => {
    expect(await decide(change)).toMatch(reason);
  });

  it('without a word on encryption there is no policy, nor for a part of a volume; an open one is noted', async () => {
    await expect(policyOf(undefined)).rejects.toMatchObject({
      code: 'USAGE',
      detail: { fix: expect.stringContaining('"/data"') },
    });
    await expect(policyOf({ ...keys, '/open': undefined })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(policyOf(keys, { subPath: 'a' })).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect((await policyOf(keys)).notes).toEqual([expect.stringContaining('volume at /open: it is not encrypted')]);
  });

  it('a pod that has no claims gets no disk', async () => {
    const { templates, configuration } = readManifests(fixture('pods.yaml'));
    const bare = templates.find(({ owner }) => owner.metadata.name === 'bare');
    if (bare === undefined) throw new Error('no pod bare');
    const { policy } = await generatePolicy(bare.owner, bare.template, configuration, async () => image);
    const agent = await startedAgent(policy);
    const { allowed, prints } = await agent.decide('CreateContainerRequest', await request());
    expect(allowed).toBe(false);
    expect(prints.join('\n')).toMatch(/devices\[\/dev\/raw\]/);
  });
});
