import { spawnSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildImage, type ImageEntry, pushImage } from '@sealpod/cli/image';
import { NamespaceMode } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import { volumeKeysAnnotation } from '@sealpod/protocol/volume-keys';
import { parseReference } from '@sealpod/registry';
import { type CriClient, connectCri } from '@sealpod/runtimeclass/cri';
import { type Container, generatePolicy, initdataAnnotation, workloadInitdata } from '@sealpod/workload';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { directVolumeName, directVolumesFolder } from '../../runtimeclass/shim/volumes/direct-volume.ts';
import { diskHolds, LoopDevices, type LoopDisk, loopObstacle } from '../loop-devices.ts';
import { TestEnvironment } from './environment.ts';

/*
 * Persistent volumes over the whole path but Kubernetes: what a storage driver leaves on the node, containerd, shim, adaptor,
 * real machines. The same loop devices go from one pod to the next.
 */

const obstacle = loopObstacle();
const environment = new TestEnvironment();
const namespaceOptions = { network: NamespaceMode.POD, pid: NamespaceMode.CONTAINER, ipc: NamespaceMode.POD } as const;
const hidden = ['acpi', 'asound', 'kcore', 'keys', 'latency_stats', 'timer_list', 'timer_stats', 'sched_debug', 'scsi'];
const maskedPaths = [...hidden.map((name) => `/proc/${name}`), '/sys/firmware'];
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];
const canary = `canary-${randomUUID()}`;

let cri: CriClient;
let work = '';
let image = '';
const loops = new LoopDevices();
const handed: string[] = [];
const sandboxes = new Set<string>();

/** A volume as a storage driver leaves it: a folder that nothing is mounted at, and a file that says what belongs there. */
function directVolume(uid: string, name: string, device: string): string {
  const source = join(work, 'pods', uid, 'volumes/kubernetes.io~csi', name, 'mount');
  mkdirSync(source, { recursive: true });
  const folder = join(directVolumesFolder, directVolumeName(source));
  mkdirSync(folder, { recursive: true });
  handed.push(folder);
  writeFileSync(
    join(folder, 'mountInfo.json'),
    JSON.stringify({ 'volume-type': 'block', device, fstype: 'ext4', metadata: {}, options: [] }),
  );
  return source;
}

interface Sandbox {
  readonly id: string;
  readonly uid: string;
  readonly config: NonNullable<Parameters<CriClient['runtime']['createContainer']>[0]['sandboxConfig']>;
}

/** Boots a machine whose guest allows these containers. `told` is what the host says of keys; the owner's policy says `keys`. */
async function boot(
  name: string,
  containers: readonly Container[],
  keys: Record<string, string>,
  told: Record<string, string> = keys,
): Promise<Sandbox> {
  const uid = randomUUID();
  const spec = {
    containers,
    volumes: ['data', 'raw', 'other', 'bare'].map((volume) => ({
      name: volume,
      persistentVolumeClaim: { claimName: volume },
    })),
  };
  const metadata = { name, annotations: { [volumeKeysAnnotation]: JSON.stringify(keys) } };
  const { policy } = await generatePolicy(
    { kind: 'Pod', metadata },
    { metadata, spec },
    { configMaps: new Map(), secrets: new Map() },
    async () => ({
      reference: image,
      entrypoint: [],
      command: ['/bin/sh'],
      environment: ['PATH=/bin'],
      workingDirectory: '/',
      user: '',
    }),
    { namespace: 'default' },
  );
  const state = environment.state();
  const initdata = workloadInitdata({
    kbs: {
      url: String(state['kbsUrl']),
      certificatePem: readFileSync(String(state['kbsCertificateFile']), 'utf8'),
    },
    plainHttpRegistries: [image.split('/')[0] ?? ''],
    images: [image],
    agentPolicy: policy,
  });
  await environment.json('refvalue', 'put', 'tpm_initdata', initdata.digest);
  const logDirectory = join(work, 'logs', uid);
  mkdirSync(logDirectory, { recursive: true });
  const config = {
    metadata: { name, uid, namespace: 'default', attempt: 0 },
    hostname: name,
    logDirectory,
    dnsConfig: { servers: [String(state['address'])] },
    annotations: {
      [initdataAnnotation]: initdata.annotation,
      [volumeKeysAnnotation]: JSON.stringify(told),
    },
    linux: { securityContext: { namespaceOptions } },
  } as unknown as Sandbox['config'];
  const { podSandboxId: id } = await cri.runtime.runPodSandbox({ config, runtimeHandler: 'sealpod' });
  sandboxes.add(id);
  return { id, uid, config };
}

interface Attachments {
  readonly mounts?: readonly { readonly source: string; readonly path: string }[];
  readonly devices?: readonly { readonly device: string; readonly path: string }[];
}

/** Runs a container to its end; returns what it wrote. */
async function runContainer(sandbox: Sandbox, container: Container, with_: Attachments): Promise<string> {
  await cri.images.pullImage({ image: { image }, sandboxConfig: sandbox.config });
  const { containerId } = await cri.runtime.createContainer({
    podSandboxId: sandbox.id,
    sandboxConfig: sandbox.config,
    config: {
      metadata: { name: container.name, attempt: 0 },
      image: { image, userSpecifiedImage: image },
      command: [...(container.command ?? [])],
      logPath: `${container.name}.log`,
      mounts: (with_.mounts ?? []).map(({ source, path }) => ({ hostPath: source, containerPath: path })),
      devices: (with_.devices ?? []).map(({ device, path }) => ({
        hostPath: device,
        containerPath: path,
        permissions: 'mrw',
      })),
      linux: { securityContext: { namespaceOptions, maskedPaths, readonlyPaths } },
    },
  });
  await cri.runtime.startContainer({ containerId });
  const status = async () => (await cri.runtime.containerStatus({ containerId })).status;
  await expect.poll(async () => (await status())?.finishedAt ?? 0n, { timeout: 60_000 }).toBeGreaterThan(0n);
  const log = readFileSync(join(work, 'logs', sandbox.uid, `${container.name}.log`), 'utf8');
  expect((await status())?.exitCode, log).toBe(0);
  return log;
}

async function remove(sandbox: Sandbox): Promise<void> {
  await cri.runtime.stopPodSandbox({ podSandboxId: sandbox.id });
  await cri.runtime.removePodSandbox({ podSandboxId: sandbox.id });
  sandboxes.delete(sandbox.id);
}

async function pushBusybox(registry: string): Promise<string> {
  const applets = ['sh', 'cat', 'dd', 'echo', 'sync', 'ls', 'head', 'test', 'mount'];
  const root: ImageEntry[] = [
    { path: 'bin', type: 'directory' },
    { path: 'bin/busybox', type: 'file', mode: 0o755, content: { file: '/bin/busybox' } },
    ...applets.map((applet): ImageEntry => ({ path: `bin/${applet}`, type: 'symlink', target: 'busybox' })),
  ];
  const output = join(work, 'layout');
  await buildImage({ root, process: { command: ['/bin/sh'], environment: ['PATH=/bin'] }, output, tag: 'latest' });
  const digest = await pushImage({
    plainHttpHosts: new Set([registry]),
    source: { kind: 'layout', directory: output, tag: 'latest' },
    destination: parseReference(`${registry}/tests/volumes:1`),
  });
  return `${registry}/tests/volumes@${digest}`;
}

const shell = (name: string, script: string, more: Partial<Container> = {}): Container => ({
  name,
  image: 'any',
  command: ['/bin/sh', '-ec', script],
  ...more,
});

describe.skipIf(obstacle !== undefined)(`persistent volumes ${obstacle ?? ''}`, () => {
  let data: LoopDisk;
  let other: LoopDisk;
  let raw: LoopDisk;

  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), 'sp-volumes-'));
    const up = await environment.sealpod('up', '--detach', '--no-demonstration');
    expect(up.code, up.stderr).toBe(0);
    const state = environment.state();
    image = await pushBusybox(String(state['registry']));
    cri = connectCri(String(state['containerdSocket']));
    for (const key of ['data', 'other'])
      await environment.sealpodWithInput(
        randomBytes(32).toString('hex'),
        'secret',
        'put',
        `default/volume-key/${key}`,
        '--file',
        '-',
      );
    data = loops.make(work, 'data');
    other = loops.make(work, 'other');
    raw = loops.make(work, 'raw');
  });

  afterAll(async () => {
    for (const id of sandboxes) {
      await cri.runtime.stopPodSandbox({ podSandboxId: id });
      await cri.runtime.removePodSandbox({ podSandboxId: id });
    }
    cri?.close();
    await environment.sealpod('down');
    for (const folder of handed) rmSync(folder, { recursive: true, force: true });
    loops.detachAll();
    rmSync(work, { recursive: true, force: true });
    expect(environment.residue()).toEqual([]);
    await environment.remove();
  });

  const keys = { '/data': 'kbs:///default/volume-key/data', '/dev/raw': 'none' };
  const volumeMounts = [{ name: 'data', mountPath: '/data' }];
  const volumeDevices = [{ name: 'raw', devicePath: '/dev/raw' }];

  it('what a pod writes is there for the next, and the host holds no plaintext of an encrypted volume', async () => {
    const write = shell(
      'main',
      `echo ${canary} > /data/file; echo raw-${canary} | dd of=/dev/raw conv=fsync 2>/dev/null; test ! -e /dev/sda; echo wrote`,
      { volumeMounts, volumeDevices },
    );
    const first = await boot('writer', [write], keys);
    const attach = (sandbox: Sandbox): Attachments => ({
      mounts: [{ source: directVolume(sandbox.uid, 'pv-data', data.device), path: '/data' }],
      devices: [{ device: raw.device, path: '/dev/raw' }],
    });
    expect(await runContainer(first, write, attach(first))).toContain('wrote');
    // While a machine has it, nobody else on the node gets it.
    expect(spawnSync('mount', [raw.device, work]).status).not.toBe(0);
    await remove(first);

    expect(diskHolds(raw, `raw-${canary}`)).toBe(true);
    expect(diskHolds(data, canary)).toBe(false);
    expect(readFileSync(data.file).subarray(0, 4).toString('latin1')).toBe('LUKS');

    const read = shell('main', 'cat /data/file; head -c 60 /dev/raw', { volumeMounts, volumeDevices });
    const second = await boot('reader', [read], keys);
    const log = await runContainer(second, read, attach(second));
    expect(log).toContain(` ${canary}`);
    expect(log).toContain(`raw-${canary}`);
    await remove(second);
  });

  it('a swapped volume, a dropped encryption and a volume of no claim are refused, by name', async () => {
    const mounted = (name: string) => [{ name, mountPath: `/${name}` }];
    const containers = [
      shell('swapped', 'true', { volumeMounts: mounted('other') }),
      shell('dropped', 'true', { volumeMounts: mounted('bare') }),
      shell('plain', 'true'),
    ];
    const [swapped, dropped, plain] = containers;
    if (swapped === undefined || dropped === undefined || plain === undefined) throw new Error('no containers');
    const policyKeys = { '/other': 'kbs:///default/volume-key/other', '/bare': 'kbs:///default/volume-key/data' };
    const sandbox = await boot('hostile', containers, policyKeys, { ...policyKeys, '/bare': 'none' });
    const given = (path: string, device: string): Attachments => ({
      mounts: [{ source: directVolume(sandbox.uid, `pv${path.slice(1)}`, device), path }],
    });
    // The other claim's key with this claim's disk.
    await expect(runContainer(sandbox, swapped, given('/other', data.device))).rejects.toThrow(
      /VOLUME_KEY|does not open/,
    );
    await expect(runContainer(sandbox, dropped, given('/bare', other.device))).rejects.toThrow(
      /storages\[\/bare\]\.encryption_key: expected .*volume-key\/data.*actual \[\]/,
    );
    await expect(runContainer(sandbox, plain, { devices: [{ device: raw.device, path: '/dev/raw' }] })).rejects.toThrow(
      /devices\[\/dev\/raw\]/,
    );
    await remove(sandbox);
  });
});
