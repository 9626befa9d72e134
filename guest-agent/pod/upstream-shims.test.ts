import { existsSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Status } from '@sealpod/protocol/ttrpc';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  allowAll,
  cannotRunContainers,
  containerRequest,
  type PodFixture,
  readAll,
  startPod,
} from './testing/pod-fixture.ts';

const reason = cannotRunContainers();
/** `os.ModeDir | 0750` of Go, which the Go shim sends as the mode of parent folders. */
const goDirectoryMode = 0x8000_01e8;
const sandboxId = '5'.repeat(64);
const appId = 'a'.repeat(64);

/**
 * The requests of Kata's Go shim for a pod with a remote hypervisor, in its order and with its values
 * (virtcontainers/kata_agent.go), and what runtime-rs does otherwise. Not a recording: made from the sources' tables.
 */
describe.skipIf(reason !== undefined)(`a pod of Kata’s shims${reason ? ` (skipped: ${reason})` : ''}`, () => {
  let pod: PodFixture;
  beforeAll(async () => {
    pod = await startPod(allowAll);
  });
  afterAll(() => pod?.close());

  const shared = (name: string) => join(pod.root, 'shared/containers', name);
  const stdout = (containerId: string, execId: string) =>
    readAll((len) => pod.agent.readStdout({ containerId, execId, len }));

  /** CreateContainer as the Go shim sends it: the container's id is also the id of its first process. */
  function goContainer(id: string, args: string[], annotations: Record<string, string>, terminal = false) {
    const request = containerRequest(pod.root, { id, args, terminal });
    request.OCI.Annotations = {
      ...annotations,
      'io.katacontainers.pkg.oci.bundle_path': `/run/containerd/io.containerd.runtime.v2.task/k8s.io/${id}`,
    };
    const [storage] = request.storages;
    if (storage !== undefined)
      storage.driverOptions = [`image_guest_pull=${JSON.stringify({ metadata: request.OCI.Annotations })}`];
    if (request.OCI.Linux !== undefined) {
      request.OCI.Linux.CgroupsPath = `kubepods-besteffort-pod1.slice:cri-containerd:${id}`;
      for (const namespace of request.OCI.Linux.Namespaces) namespace.Path = '';
    }
    return { ...request, execId: id, devices: [], sandboxPidns: false };
  }

  const app = { 'io.kubernetes.cri.container-type': 'container', 'io.kubernetes.cri.sandbox-id': sandboxId };

  it('begins: Health.Check without a service, CreateSandbox with shared memory, GetGuestDetails', async () => {
    expect(await pod.health.check({ service: '' })).toMatchObject({ status: 1 });
    expect(await pod.health.version({ service: '' })).toMatchObject({ grpcVersion: '0.0.1' });
    await pod.agent.createSandbox({
      hostname: 'pod',
      dns: ['search default.svc.cluster.local', 'nameserver 10.96.0.10', 'options ndots:5', ''],
      storages: [
        {
          driver: 'ephemeral',
          source: 'shm',
          fstype: 'tmpfs',
          options: ['noexec', 'nosuid', 'nodev', 'mode=1777', 'size=67108864'],
          mountPoint: join(pod.root, 'sandbox/shm'),
        },
      ],
      sandboxPidns: false,
      sandboxId,
      guestHookPath: '',
      kernelModules: [],
    });
    const details = await pod.agent.getGuestDetails({ memBlockSize: true, memHotplugProbe: true });
    expect(details.agentDetails?.storageHandlers).toEqual(
      expect.arrayContaining(['ephemeral', 'local', 'image_guest_pull']),
    );
    expect(details.supportMemHotplugProbe).toBe(false);
  });

  it('has a pause container: no image is pulled for it, and it runs until it is killed and removed', async () => {
    const request = goContainer(sandboxId, ['/pause'], { 'io.kubernetes.cri.container-type': 'sandbox' });
    const [storage] = request.storages;
    if (storage !== undefined) storage.source = 'pause';
    await pod.agent.createContainer(request);
    await pod.agent.startContainer({ containerId: sandboxId });
    expect(existsSync(join(pod.root, sandboxId, 'rootfs/etc/image'))).toBe(false);
    expect((await pod.agent.statsContainer({ containerId: sandboxId })).cgroupStats).toBeDefined();
    expect(await stdout(sandboxId, sandboxId)).toBe('');
  });

  it('copies files, folders and links in chunks, and mounts them with an emptyDir of type `local`', async () => {
    const volume = shared(`${appId}-0123456789abcdef-config`);
    const copy = { dirMode: goDirectoryMode, uid: 0, gid: 0 };
    const put = (path: string, fileMode: number, more: object = {}) =>
      pod.agent.copyFile({ path, fileMode, ...copy, ...more });
    await put(volume, 0o040755);
    await put(`${volume}/..2026_11_24`, 0o040755);
    await put(`${volume}/..2026_11_24/key`, 0o100644, { fileSize: 6n, offset: 0n, data: Buffer.from('val') });
    expect(existsSync(`${volume}/..2026_11_24/key`)).toBe(false);
    await put(`${volume}/..2026_11_24/key`, 0o100644, { fileSize: 6n, offset: 3n, data: Buffer.from('ue\n') });
    await put(`${volume}/..data`, 0o120777, { data: Buffer.from('..2026_11_24') });
    await put(`${volume}/key`, 0o120777, { data: Buffer.from('..data/key') });
    await put(`${volume}/empty`, 0o100600);
    expect(readlinkSync(`${volume}/..data`)).toBe('..2026_11_24');
    expect(statSync(volume).mode & 0o7777).toBe(0o755);
    expect(statSync(shared('')).mode & 0o7000).toBe(0);

    const scratch = shared(`${sandboxId}/rootfs/local/scratch`);
    const request = goContainer(appId, ['sh', '-c', 'cat /config/key; echo x > /scratch/x; cat; exit 3'], app);
    const mounts = containerRequest(pod.root, {
      id: appId,
      args: [],
      spec: {
        Mounts: [
          { destination: '/config', type: 'bind', source: volume, options: ['rbind', 'rprivate', 'ro'] },
          // The Go shim changes the source of an emptyDir alone; its type stays the shim's own word.
          { destination: '/scratch', type: 'local', source: scratch, options: ['rbind', 'rprivate', 'rw'] },
          { destination: '/dev/shm', type: 'bind', source: join(pod.root, 'sandbox/shm'), options: ['rbind'] },
        ],
      },
    }).OCI.Mounts;
    request.OCI.Mounts.push(...mounts);
    await pod.agent.createContainer({
      ...request,
      storages: [
        ...request.storages,
        { driver: 'local', source: 'local', fstype: 'local', options: ['mode=0777'], mountPoint: scratch },
      ],
    });
    await pod.agent.startContainer({ containerId: appId });
    const output = stdout(appId, appId);
    await pod.agent.writeStdin({ containerId: appId, execId: appId, data: Buffer.from('typed') });
    await pod.agent.closeStdin({ containerId: appId, execId: appId });
    expect(await output).toBe('value\ntyped');
    expect(await pod.agent.waitProcess({ containerId: appId, execId: appId })).toMatchObject({ status: 3 });
    expect(existsSync(join(scratch, 'x'))).toBe(true);
  });

  it('answers what comes after the exit: signals NOT_FOUND, wait again, statistics, removal without a time', async () => {
    await expect(pod.agent.signalProcess({ containerId: appId, execId: appId, signal: 15 })).rejects.toMatchObject({
      status: Status.notFound,
    });
    await expect(pod.agent.signalProcess({ containerId: appId, execId: '', signal: 9 })).rejects.toMatchObject({
      status: Status.notFound,
    });
    expect(await pod.agent.waitProcess({ containerId: appId, execId: appId })).toMatchObject({ status: 3 });
    expect((await pod.agent.statsContainer({ containerId: appId })).cgroupStats).toBeDefined();
    await pod.agent.removeContainer({ containerId: appId, timeout: 0 });
    await expect(pod.agent.statsContainer({ containerId: appId })).rejects.toMatchObject({ status: Status.notFound });
  });

  it('takes the size of a terminal before the start, and one of zeros', async () => {
    const id = 'b'.repeat(64);
    // It stays for a moment: crun 1.8 drops what a terminal's process wrote if it ends before crun relays.
    await pod.agent.createContainer(goContainer(id, ['sh', '-c', 'stty size; sleep 0.3'], app, true));
    await pod.agent.ttyWinResize({ containerId: id, execId: id, row: 33, column: 99 }, { timeoutMs: 5000 });
    await pod.agent.ttyWinResize({ containerId: id, execId: id, row: 0, column: 0 }, { timeoutMs: 5000 });
    await pod.agent.startContainer({ containerId: id });
    expect(await stdout(id, id)).toBe('33 99\r\n');
    await pod.agent.waitProcess({ containerId: id, execId: id });
    await pod.agent.removeContainer({ containerId: id });
  });

  it('delivers real-time signals, which images may stop on', async () => {
    const id = 'c'.repeat(64);
    await pod.agent.createContainer(
      goContainer(id, ['sh', '-c', 'trap "exit 9" 37; echo ready; while :; do :; done'], app),
    );
    await pod.agent.startContainer({ containerId: id });
    expect(
      Buffer.from((await pod.agent.readStdout({ containerId: id, execId: id, len: 32 * 1024 })).data).toString(),
    ).toBe('ready\n');
    await pod.agent.signalProcess({ containerId: id, execId: id, signal: 37 });
    expect(await pod.agent.waitProcess({ containerId: id, execId: id })).toMatchObject({ status: 9 });
    await expect(pod.agent.signalProcess({ containerId: id, execId: id, signal: 65 })).rejects.toMatchObject({
      status: Status.invalidArgument,
    });
    await pod.agent.removeContainer({ containerId: id });
  });

  it('removes what was created and never started: kill, wait, remove', async () => {
    const id = 'd'.repeat(64);
    await pod.agent.createContainer(goContainer(id, ['true'], app));
    await pod.agent.signalProcess({ containerId: id, execId: '', signal: 9 });
    expect(await pod.agent.waitProcess({ containerId: id, execId: id })).toMatchObject({ status: 137 });
    await pod.agent.removeContainer({ containerId: id });
  });

  it('ends: the pause container is killed, waited for and removed, then the sandbox', async () => {
    await pod.agent.signalProcess({ containerId: sandboxId, execId: sandboxId, signal: 9 });
    expect(await pod.agent.waitProcess({ containerId: sandboxId, execId: sandboxId })).toMatchObject({ status: 137 });
    await pod.agent.removeContainer({ containerId: sandboxId });
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).toContain(`${pod.root}/sandbox/shm`);
    await pod.agent.destroySandbox({});
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(pod.root);
  });
});
