import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import type { V1PersistentVolume } from '@kubernetes/client-node';
import { Node, NodePublishVolumeRequestSchema } from '@sealpod/protocol/gen/csi/csi_pb';
import { InfoRequestSchema, Registration } from '@sealpod/protocol/gen/csi/plugin_registration_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '../../adaptor/log.ts';
import { Backing } from './backing.ts';
import { type DriverConfig, parseDriverConfig } from './config.ts';
import { type ClusterApi, Provisioner } from './provisioner.ts';
import { Publisher } from './publish.ts';
import { parseBytes } from './quantity.ts';
import { driverSockets, serveDriver } from './services.ts';

const log = createLog('silent');
let base: string;
let config: DriverConfig;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'sp-csi-'));
  config = parseDriverConfig(
    JSON.stringify({
      driver: 'volumes.test',
      node: 'n1',
      directory: join(base, 'volumes'),
      kubeletDirectory: join(base, 'kubelet'),
      kubeconfig: '/dev/null',
      directVolumes: join(base, 'direct'),
    }),
    'test',
  );
});
afterEach(() => {
  for (const line of execFileSync('losetup', ['--list', '--noheadings', '--output', 'NAME,BACK-FILE'], {
    encoding: 'utf8',
  }).split('\n')) {
    const [name = '', file = ''] = line.trim().split(/\s+/);
    if (file.startsWith(`${base}/`)) execFileSync('losetup', ['--detach', name]);
  }
  rmSync(base, { recursive: true, force: true });
});

const loopsOf = () =>
  execFileSync('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE'], { encoding: 'utf8' }).includes(base);
const cannotLoop = () =>
  process.getuid?.() !== 0
    ? 'needs root'
    : spawnSync('losetup', ['--find']).status === 0
      ? undefined
      : 'needs a free loop device';

describe('publishing', () => {
  const setUp = async () => {
    const backing = new Backing(config.directory);
    await backing.create('v1', 32 << 20);
    const publisher = new Publisher(backing, config.directVolumes);
    const publish = (target: string, as: 'mount' | 'direct' | 'block', more: object = {}) =>
      publisher.publish({
        volumeId: 'v1',
        target: join(base, target),
        as,
        readOnly: false,
        options: [],
        key: undefined,
        ...more,
      });
    return {
      backing,
      publisher,
      publish,
      unpublish: (target: string) => publisher.unpublish('v1', join(base, target)),
    };
  };

  it('mounts for pods of the node, and leaves nothing when the last has ended', async ({ skip }) => {
    const obstacle = cannotLoop();
    if (obstacle !== undefined) skip(obstacle);
    const { publish, unpublish } = await setUp();
    await publish('a/mount', 'mount');
    await publish('a/mount', 'mount');
    writeFileSync(join(base, 'a/mount/file'), 'kept');
    await publish('b/mount', 'mount', { readOnly: true });
    expect(readFileSync(join(base, 'b/mount/file'), 'utf8')).toBe('kept');
    expect(() => writeFileSync(join(base, 'b/mount/file'), 'x')).toThrow(/EROFS/);
    await expect(publish('c/mount', 'direct')).rejects.toMatchObject({ code: 'STORAGE_CONFLICT' });
    await unpublish('b/mount');
    expect(loopsOf()).toBe(true);
    await unpublish('a/mount');
    await unpublish('a/mount');
    expect([loopsOf(), existsSync(join(base, 'a/mount')), existsSync(join(base, 'b/mount'))]).toEqual([
      false,
      false,
      false,
    ]);
    await publish('a/mount', 'mount');
    expect(readFileSync(join(base, 'a/mount/file'), 'utf8')).toBe('kept');
    await unpublish('a/mount');
  });

  it('leaves it unmounted for a machine, alone, in the form of a direct volume', async ({ skip }) => {
    const obstacle = cannotLoop();
    if (obstacle !== undefined) skip(obstacle);
    const { publish, unpublish, backing } = await setUp();
    await publish('a/mount', 'direct', { options: ['noatime'], key: 'kbs:///default/volume-key/a' });
    expect(readdirSync(join(base, 'a/mount'))).toEqual([]);
    const [name = ''] = readdirSync(config.directVolumes);
    expect(Buffer.from(name, 'base64url').toString()).toBe(join(base, 'a/mount'));
    expect(JSON.parse(readFileSync(join(config.directVolumes, name, 'mountInfo.json'), 'utf8'))).toEqual({
      'volume-type': 'block',
      device: expect.stringMatching(/^\/dev\/loop\d+$/),
      fstype: 'ext4',
      metadata: { 'encrypt-type': 'luks2', 'kbs-key-id': 'default/volume-key/a' },
      options: ['noatime'],
    });
    for (const as of ['mount', 'direct'] as const)
      await expect(publish('b/mount', as)).rejects.toMatchObject({ code: 'STORAGE_CONFLICT' });
    await expect(backing.remove('v1')).rejects.toMatchObject({ code: 'STORAGE_CONFLICT' });
    // A driver that was restarted takes back what an earlier one gave.
    await new Publisher(new Backing(config.directory), config.directVolumes).unpublish('v1', join(base, 'a/mount'));
    expect([readdirSync(config.directVolumes), existsSync(join(base, 'a/mount')), loopsOf()]).toEqual([
      [],
      false,
      false,
    ]);
    await unpublish('b/mount');
    await backing.remove('v1');
    expect(readdirSync(config.directory)).toEqual([]);
  });

  it('gives the raw device, and never mounts or formats what is encrypted', async ({ skip }) => {
    const obstacle = cannotLoop();
    if (obstacle !== undefined) skip(obstacle);
    const { publish, unpublish, backing } = await setUp();
    await publish('a/device', 'block');
    expect(statSync(join(base, 'a/device')).isBlockDevice()).toBe(true);
    await unpublish('a/device');
    expect([existsSync(join(base, 'a/device')), loopsOf()]).toEqual([false, false]);
    writeFileSync(join(config.directory, 'v1/disk.img'), 'LUKS\xba\xbe', { flag: 'r+' });
    await expect(publish('a/mount', 'mount')).rejects.toMatchObject({ code: 'VOLUME_FORMAT' });
    // The kubelet does not take back what it was refused; the volume can go nevertheless.
    expect([await backing.published('v1'), existsSync(join(base, 'a/mount')), loopsOf()]).toEqual([{}, false, false]);
    await backing.remove('v1');
  });

  it('an id is no path', async () => {
    for (const id of ['', '../x', 'a/b', '.x'])
      await expect(new Backing(base).create(id, 1)).rejects.toMatchObject({ code: 'REQUEST_FORMAT' });
  });
});

describe('the services', () => {
  it('speak CSI and the registration of plugins; who runs the pod decides how a volume is given', async () => {
    const given: string[] = [];
    const publisher = {
      publish: async ({ target, as, key }: { target: string; as: string; key: string | undefined }) =>
        void given.push(`${target} ${as} ${key}`),
      unpublish: async () => undefined,
    } as unknown as Publisher;
    const pods = {
      handlerOf: async ({ name }: { name: string }) => ({ sealed: 'sealpod', plain: undefined, other: 'kata' })[name],
    };
    const close = await serveDriver(config, publisher, pods, log);
    const sockets = driverSockets(config);
    const clients: Client[] = [];
    const call = (
      socket: string,
      shape: {
        path: string;
        requestSerialize: (value: unknown) => Buffer;
        responseDeserialize: (bytes: Buffer) => unknown;
      },
      request: unknown,
    ) =>
      new Promise<unknown>((resolve, reject) => {
        const client = new Client(`unix://${socket}`, credentials.createInsecure());
        clients.push(client);
        client.makeUnaryRequest(
          shape.path,
          shape.requestSerialize,
          shape.responseDeserialize,
          request,
          (error: ServiceError | null, answer?: unknown) => (error === null ? resolve(answer) : reject(error)),
        );
      });
    try {
      expect(statSync(sockets.plugin).mode & 0o777).toBe(0o600);
      const registration = toGrpcServiceDefinition(Registration)['getInfo'];
      const node = toGrpcServiceDefinition(Node)['nodePublishVolume'];
      if (registration === undefined || node === undefined) throw new Error('no such method');
      expect(await call(sockets.registration, registration, create(InfoRequestSchema))).toMatchObject({
        type: 'CSIPlugin',
        name: 'volumes.test',
        endpoint: sockets.plugin,
        supportedVersions: ['1.0.0'],
      });
      const publish = (name: string, accessType: object, mode = 1) =>
        call(
          sockets.plugin,
          node,
          create(NodePublishVolumeRequestSchema, {
            volumeId: 'v',
            targetPath: name,
            volumeCapability: { accessType, accessMode: { mode } } as never,
            volumeContext: { 'csi.storage.k8s.io/pod.name': name, 'sealpod.io/encryption-key': 'k' },
          }),
        );
      const mounted = { case: 'mount', value: { fsType: 'ext4' } };
      await publish('sealed', mounted);
      await publish('plain', mounted);
      await publish('other', mounted);
      await publish('sealed', { case: 'block', value: {} });
      expect(given).toEqual(['sealed direct k', 'plain mount k', 'other mount k', 'sealed block k']);
      await expect(publish('plain', mounted, 5)).rejects.toMatchObject({
        code: 3,
        details: expect.stringContaining('UNSUPPORTED'),
      });
    } finally {
      for (const client of clients) client.close();
      close();
    }
    expect(Object.values(sockets).filter((socket) => existsSync(socket))).toEqual([]);
  });
});

describe('provisioning', () => {
  const claim = (
    name: string,
    more: object = {},
    annotations: object = { 'volume.kubernetes.io/selected-node': 'n1' },
  ) => ({
    metadata: { name, namespace: 'default', uid: `uid-${name}`, annotations },
    spec: {
      storageClassName: 'standard',
      accessModes: ['ReadWriteOnce'],
      resources: { requests: { storage: '32Mi' } },
      ...more,
    },
    status: { phase: 'Pending' },
  });
  const standard = {
    metadata: { name: 'standard' },
    provisioner: 'volumes.test',
    volumeBindingMode: 'WaitForFirstConsumer',
  };

  function cluster(claims: object[], volumes: object[] = []) {
    const made: V1PersistentVolume[] = [];
    const deleted: string[] = [];
    const events: string[] = [];
    const api = {
      core: {
        listPersistentVolumeClaimForAllNamespaces: async () => ({ items: claims }),
        listPersistentVolume: async () => ({ items: volumes }),
        createPersistentVolume: async ({ body }: { body: V1PersistentVolume }) => {
          if (made.some(({ metadata }) => metadata?.name === body.metadata?.name))
            throw Object.assign(new Error('exists'), { code: 409 });
          made.push(body);
        },
        deletePersistentVolume: async ({ name }: { name: string }) => void deleted.push(name),
        createNamespacedEvent: async ({ body }: { body: { message: string } }) => void events.push(body.message),
      },
      storage: {
        listStorageClass: async () => ({ items: [standard, { metadata: { name: 'foreign' }, provisioner: 'other' }] }),
      },
    } as unknown as ClusterApi;
    return { made, deleted, events, provisioner: new Provisioner(config, api, new Backing(config.directory), log) };
  }

  it('makes a sparse file and a volume bound to its claim and this node, once', async () => {
    mkdirSync(config.directory);
    const { made, provisioner, events } = cluster([
      claim(
        'a',
        {},
        { 'volume.kubernetes.io/selected-node': 'n1', 'sealpod.io/encryption-key': 'kbs:///default/volume-key/a' },
      ),
      claim('block', { volumeMode: 'Block' }),
      claim('elsewhere', {}, { 'volume.kubernetes.io/selected-node': 'n2' }),
      claim('unscheduled', {}, {}),
      claim('foreign', { storageClassName: 'foreign' }),
      claim('bound', { volumeName: 'x' }),
    ]);
    await provisioner.reconcile();
    await provisioner.reconcile();
    expect(made.map(({ metadata }) => metadata?.name)).toEqual(['pvc-uid-a', 'pvc-uid-block']);
    expect(made[0]?.spec).toMatchObject({
      capacity: { storage: '32Mi' },
      accessModes: ['ReadWriteOnce'],
      volumeMode: 'Filesystem',
      persistentVolumeReclaimPolicy: 'Delete',
      claimRef: { namespace: 'default', name: 'a', uid: 'uid-a' },
      csi: {
        driver: 'volumes.test',
        volumeHandle: 'pvc-uid-a',
        fsType: 'ext4',
        volumeAttributes: { 'sealpod.io/encryption-key': 'kbs:///default/volume-key/a' },
      },
    });
    expect(made[1]?.spec?.csi?.fsType).toBeUndefined();
    const file = statSync(join(config.directory, 'pvc-uid-a/disk.img'));
    expect([file.size, file.blocks]).toEqual([32 << 20, 0]);
    expect(events).toEqual([]);
  });

  it('tells once why a claim cannot have a volume', async () => {
    mkdirSync(config.directory);
    const { made, events, provisioner } = cluster([
      claim('many', { accessModes: ['ReadWriteMany'] }),
      claim('small', { resources: { requests: { storage: '1Ki' } } }),
    ]);
    await provisioner.reconcile();
    await provisioner.reconcile();
    expect(made).toEqual([]);
    expect(events).toEqual([
      expect.stringContaining('access modes ReadWriteOnce or ReadWriteOncePod'),
      expect.stringContaining('at least 16Mi'),
    ]);
  });

  it('removes what is released and to be deleted, and nothing else', async () => {
    const volume = (name: string, more: object) => ({
      metadata: { name, uid: name },
      spec: { csi: { driver: 'volumes.test', volumeHandle: name }, persistentVolumeReclaimPolicy: 'Delete', ...more },
      status: { phase: 'Released' },
    });
    const { deleted, provisioner } = cluster(
      [],
      [
        volume('gone', {}),
        volume('kept', { persistentVolumeReclaimPolicy: 'Retain' }),
        volume('foreign', { csi: { driver: 'other', volumeHandle: 'foreign' } }),
        { ...volume('bound', {}), status: { phase: 'Bound' } },
      ],
    );
    for (const name of ['gone', 'kept', 'foreign', 'bound']) {
      mkdirSync(join(config.directory, name), { recursive: true });
      writeFileSync(join(config.directory, name, 'disk.img'), '');
    }
    await provisioner.reconcile();
    expect([deleted, readdirSync(config.directory).sort()]).toEqual([['gone'], ['bound', 'foreign', 'kept']]);
  });

  it.each([
    ['32Mi', 32 << 20],
    ['1Gi', 1 << 30],
    ['20M', 20_000_768],
    ['16777217', 16_781_312],
  ])('reads %s', (text, bytes) => expect(parseBytes(text)).toBe(bytes));

  it.each(['', '0', '1', '-1Gi', '1Xi', '1e9', '9999999P', 'Gi'])('%j is no size', (text) => {
    expect(() => parseBytes(text)).toThrow(expect.objectContaining({ code: 'REQUEST_FORMAT' }));
  });
});
