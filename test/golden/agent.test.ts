import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allowAll, cannotRunContainers, type PodFixture, startPod } from '../../guest-agent/pod/testing/pod-fixture.ts';
import { bytesOf, field, fieldsOf, map, message, number, numberOf, RawCaller, type RawFrame, texts } from './wire.ts';

/*
 * Frames as Kata's shims (Go, and runtime-rs where it differs) put them on the agent's socket, built byte by byte from the
 * field tables of the agent protocol, against our agent with real containers; and its answers, byte by byte.
 */

const reason = cannotRunContainers();
const agent = 'grpc.AgentService';
/** An answer without content: a status that is there and empty, no payload. */
const empty = '0a00';
const sandboxId = '5'.repeat(64);
const appId = 'a'.repeat(64);
const capabilities = ['CAP_CHOWN', 'CAP_KILL', 'CAP_SETUID', 'CAP_SETGID'];

const target = (containerId: string, execId: string) =>
  message(field(1, containerId), execId === '' ? Buffer.alloc(0) : field(2, execId));

/** Limits, but where the machine's cgroup v2 has no controllers to set them (the guest's has). */
const limits = (memory: number, quota: number): Buffer =>
  existsSync('/sys/fs/cgroup/cgroup.controllers')
    ? message(field(2, number(1, memory)), field(3, number(1, 512), number(2, quota), number(3, 100_000)))
    : Buffer.alloc(0);

/** Process{Terminal=1, ConsoleSize=2, User=3, Args=4, Env=5, Cwd=6, Capabilities=7, Rlimits=8, NoNewPrivileges=9, OOMScoreAdj=11} */
function processBytes(args: readonly string[], terminal = false, outOfMemoryScore = 1000n): Buffer {
  return message(
    number(1, terminal),
    ...(terminal ? [field(2, number(1, 24), number(2, 80))] : []),
    field(3, number(1, 0), number(2, 0), field(3, Buffer.from([0]))),
    texts(4, args),
    texts(5, ['PATH=/bin', 'HOSTNAME=pod']),
    field(6, '/'),
    field(7, texts(1, capabilities), texts(2, capabilities), texts(4, capabilities)),
    field(8, field(1, 'RLIMIT_NOFILE'), number(2, 1024), number(3, 1024)),
    number(9, true),
    number(11, outOfMemoryScore),
  );
}

/** Spec{Version=1, Process=2, Root=3, Mounts=5, Annotations=7, Linux=8} */
function specBytes(
  rootfs: string,
  process: Buffer,
  annotations: Record<string, string>,
  mounts: Buffer[] = [],
): Buffer {
  const mount = (destination: string, source: string, type: string, options: readonly string[]) =>
    field(5, field(1, destination), field(2, source), field(3, type), texts(4, options));
  return message(
    field(1, '1.2.1'),
    field(2, process),
    field(3, field(1, rootfs)),
    mount('/proc', 'proc', 'proc', ['nosuid', 'noexec', 'nodev']),
    mount('/dev', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    mount('/dev/pts', 'devpts', 'devpts', ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620']),
    ...mounts,
    map(7, annotations),
    field(
      8,
      // Resources{Memory=2{Limit=1}, CPU=3{Shares=1, Quota=2, Period=3}}
      field(4, limits(134_217_728, 50_000)),
      field(5, `kubepods-burstable-pod1.slice:cri-containerd:${appId}`),
      ...['ipc', 'uts', 'mount'].map((type) => field(6, field(1, type))),
      texts(10, ['/proc/kcore', '/sys/firmware']),
      texts(11, ['/proc/sys']),
    ),
  );
}

describe.skipIf(reason !== undefined)(`golden frames of Kata’s shims${reason ? ` (skipped: ${reason})` : ''}`, () => {
  let pod: PodFixture;
  let caller: RawCaller;
  beforeAll(async () => {
    pod = await startPod(allowAll);
    caller = await RawCaller.connect(join(pod.root, '../agent.sock'));
  });
  afterAll(async () => {
    caller?.close();
    await pod?.close();
  });

  /** The answer's body; its frame has to be a response without flags. */
  async function ask(method: string, payload: Uint8Array, service = agent): Promise<Buffer> {
    const answer: RawFrame = await caller.call(service, method, payload);
    expect({ type: answer.type, flags: answer.flags }, method).toEqual({ type: 2, flags: 0 });
    return answer.body;
  }
  const expectEmpty = async (method: string, payload: Uint8Array): Promise<void> => {
    expect((await ask(method, payload)).toString('hex'), method).toBe(empty);
  };
  /** CreateContainerRequest{container_id=1, exec_id=2, storages=5, OCI=6} */
  const createContainer = (id: string, execId: string, source: string, spec: Buffer, more: Buffer[] = []) =>
    message(
      field(1, id),
      ...(execId === '' ? [] : [field(2, execId)]),
      field(
        5,
        field(1, 'image_guest_pull'),
        field(2, 'image_guest_pull={"metadata":{}}'),
        field(3, source),
        field(4, 'overlay'),
        field(6, join(pod.root, id, 'rootfs')),
      ),
      ...more,
      field(6, spec),
    );

  it('Health.Check with and without a service; Version', async () => {
    const serving = '0a0012020801';
    expect((await ask('Check', Buffer.alloc(0), 'grpc.Health')).toString('hex')).toBe(serving);
    expect((await ask('Check', field(1, 'grpc.AgentService'), 'grpc.Health')).toString('hex')).toBe(serving);
    const version = message(field(1), field(2, field(1, '0.0.1'), field(2, '0.1.0-test')));
    expect((await ask('Version', Buffer.alloc(0), 'grpc.Health')).toString('hex')).toBe(version.toString('hex'));
  });

  it('SetPolicy', () => expectEmpty('SetPolicy', field(1, allowAll)));

  it('CreateSandbox', () =>
    expectEmpty(
      'CreateSandbox',
      message(
        field(1, 'pod'),
        texts(2, ['search default.svc.cluster.local', 'nameserver 10.96.0.10', '']),
        field(
          3,
          field(1, 'ephemeral'),
          field(3, 'shm'),
          field(4, 'tmpfs'),
          texts(5, ['noexec', 'nosuid', 'nodev', 'mode=1777', 'size=67108864']),
          field(6, join(pod.root, 'sandbox/shm')),
        ),
        field(5, sandboxId),
      ),
    ));

  it('GetGuestDetails', async () => {
    const payload = bytesOf(await ask('GetGuestDetails', message(number(1, true), number(2, true))), 2);
    const details = bytesOf(payload, 2);
    expect(
      fieldsOf(details)
        .filter((item) => item.number === 4)
        .map(({ value }) => String(value)),
    ).toEqual(expect.arrayContaining(['ephemeral', 'local', 'image_guest_pull']));
    expect(numberOf(details, 5)).toBe(1n);
    // support_mem_hotplug_probe is false, which is left out.
    expect(fieldsOf(payload).map((item) => item.number)).not.toContain(3);
  });

  it('OnlineCPUMem', () => expectEmpty('OnlineCPUMem', message(number(2, 1), number(3, true))));

  it('CreateContainer and StartContainer of the sandbox, as the Go shim names its process', async () => {
    const annotations = {
      'io.kubernetes.cri.container-type': 'sandbox',
      'io.katacontainers.pkg.oci.container_type': 'pod_sandbox',
    };
    // The pause container is never run; its score, a negative number, takes ten bytes.
    const spec = specBytes(join(pod.root, sandboxId, 'rootfs'), processBytes(['/pause'], false, -998n), annotations);
    await expectEmpty('CreateContainer', createContainer(sandboxId, sandboxId, 'pause', spec));
    await expectEmpty('StartContainer', field(1, sandboxId));
  });

  it('CopyFile: a folder, a file in two pieces, a link', async () => {
    // CopyFileRequest{path=1, file_size=2, file_mode=3, dir_mode=4, uid=5, gid=6, offset=7, data=8}
    const volume = join(pod.root, 'shared/containers', `${appId}-0123456789abcdef-config`);
    const goDirectoryMode = 0x8000_01e8;
    const copy = (path: string, size: number, mode: number, offset: number, data: string) =>
      message(
        field(1, path),
        number(2, size),
        number(3, mode),
        number(4, goDirectoryMode),
        number(7, offset),
        ...(data === '' ? [] : [field(8, data)]),
      );
    await expectEmpty('CopyFile', copy(volume, 0, 0o040755, 0, ''));
    await expectEmpty('CopyFile', copy(`${volume}/key`, 6, 0o100644, 0, 'val'));
    await expectEmpty('CopyFile', copy(`${volume}/key`, 6, 0o100644, 3, 'ue\n'));
    await expectEmpty('CopyFile', copy(`${volume}/link`, 0, 0o120777, 0, 'key'));
    expect(readFileSync(`${volume}/link`, 'utf8')).toBe('value\n');
  });

  it('a container: create, start, input, output, exit', async () => {
    const volume = join(pod.root, 'shared/containers', `${appId}-0123456789abcdef-config`);
    const bind = field(
      5,
      field(1, '/config'),
      field(2, volume),
      field(3, 'bind'),
      texts(4, ['rbind', 'rprivate', 'ro']),
    );
    const rootfs = join(pod.root, appId, 'rootfs');
    const annotations = { 'io.kubernetes.cri.container-type': 'container', 'io.kubernetes.cri.sandbox-id': sandboxId };
    const spec = specBytes(
      rootfs,
      processBytes(['sh', '-c', 'cat /config/link; read line; echo "got $line"; sleep 30']),
      annotations,
      [bind],
    );
    await expectEmpty('CreateContainer', createContainer(appId, appId, 'registry.test/app@sha256:0', spec));
    await expectEmpty('StartContainer', field(1, appId));
    const read = (method: string) => ask(method, message(field(1, appId), field(2, appId), number(3, 32_768)));
    expect((await read('ReadStdout')).toString('hex')).toBe(
      message(field(1), field(2, field(1, 'value\n'))).toString('hex'),
    );
    // WriteStreamRequest{container_id=1, exec_id=2, data=3} → {len=1}
    const written = await ask('WriteStdin', message(target(appId, appId), field(3, 'hello\n')));
    expect(written.toString('hex')).toBe('0a0012020806');
    expect(bytesOf(bytesOf(await read('ReadStdout'), 2), 1).toString()).toBe('got hello\n');
    await expectEmpty('CloseStdin', target(appId, appId));
  });

  it('StatsContainer and UpdateContainer', async () => {
    const stats = bytesOf(bytesOf(await ask('StatsContainer', field(1, appId)), 2), 1);
    // CgroupStats{cpu_stats=1, memory_stats=2, pids_stats=3, blkio_stats=4}
    expect(fieldsOf(stats).map((item) => item.number)).toEqual(expect.arrayContaining([1, 2, 3, 4]));
    await expectEmpty('UpdateContainer', message(field(1, appId), field(2, limits(268_435_456, 100_000))));
  });

  it('ExecProcess with a terminal, TtyWinResize, WaitProcess, SignalProcess', async () => {
    const execId = '0b5e2d1c-7f0a-4a3e-9c1d-2f6b8e4a1c55';
    const shell = ['sh', '-c', 'sleep 1; stty size; exit 7'];
    // ExecProcessRequest{container_id=1, exec_id=2, process=4}
    await expectEmpty('ExecProcess', message(target(appId, execId), field(4, processBytes(shell, true))));
    // TtyWinResizeRequest{container_id=1, exec_id=2, row=3, column=4}
    await expectEmpty('TtyWinResize', message(target(appId, execId), number(3, 33), number(4, 99)));
    let text = '';
    for (;;) {
      const payload = bytesOf(await ask('ReadStdout', message(target(appId, execId), number(3, 4096))), 2);
      if (payload.length === 0) break;
      text += bytesOf(payload, 1).toString();
    }
    expect(text).toBe('33 99\r\n');
    expect((await ask('WaitProcess', target(appId, execId))).toString('hex')).toBe('0a0012020807');
    // SignalProcessRequest{container_id=1, exec_id=2, signal=3}; runtime-rs leaves the exec id out for the first process.
    await expectEmpty('SignalProcess', message(field(1, appId), number(3, 9)));
    expect((await ask('WaitProcess', field(1, appId))).toString('hex')).toBe('0a001203088901');
  });

  it('GetOOMEvent waits; a failure is a status with code and words', async () => {
    const waiting = caller.call(agent, 'GetOOMEvent', Buffer.alloc(0), 0n);
    const failed = await ask('StatsContainer', field(1, 'none'));
    expect(numberOf(bytesOf(failed, 1), 1)).toBe(5n);
    expect(bytesOf(bytesOf(failed, 1), 2).toString()).toContain('container none does not exist');
    expect(await Promise.race([waiting.then(() => 'answered'), Promise.resolve('waits')])).toBe('waits');
    const unknown = await caller.call(agent, 'AddSwap', Buffer.alloc(0));
    expect(numberOf(bytesOf(unknown.body, 1), 1)).toBe(12n);
  });

  it('RemoveContainer without and with a time, DestroySandbox', async () => {
    await expectEmpty('RemoveContainer', field(1, appId));
    await expectEmpty('SignalProcess', message(target(sandboxId, sandboxId), number(3, 9)));
    await expectEmpty('RemoveContainer', message(field(1, sandboxId), number(2, 10)));
    await expectEmpty('DestroySandbox', Buffer.alloc(0));
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(pod.root);
  });
});
