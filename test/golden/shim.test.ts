import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { EventPublisher } from '../../runtimeclass/shim/events/publisher.ts';
import type { Logger } from '../../runtimeclass/shim/log.ts';
import { Pod } from '../../runtimeclass/shim/pod/pod.ts';
import { TaskService } from '../../runtimeclass/shim/task/service.ts';
import { bytesOf, field, map, message, number, type RecordedCall, recordCalls, texts } from './wire.ts';

/*
 * What our shim puts on its connections for a container of a pod, from Task calls as containerd makes them, against bytes
 * built from the field tables of the agent protocol. (The sandbox: `runtimeclass/shim/pod/pod.test.ts`.)
 */

const log: Logger = { info: () => undefined, debug: () => undefined, close: () => undefined };
const nothing = Buffer.alloc(0);
const agent = (method: string): string => `grpc.AgentService/${method}`;
const image = `registry.test/app@sha256:${'a'.repeat(64)}`;

let root: string;
let servers: Server[] = [];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sealpod-wire-'));
});
afterEach(() => {
  for (const server of servers) server.close();
  servers = [];
  rmSync(root, { recursive: true, force: true });
});

function writeBundle(name: string, config: object): string {
  const bundle = join(root, name);
  mkdirSync(bundle);
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(config));
  return bundle;
}

const json = (typeUrl: string, value: object) =>
  create(AnySchema, { typeUrl, value: new TextEncoder().encode(JSON.stringify(value)) });

it('a container’s life, call by call', async () => {
  const agentSocket = join(root, 'agent.ttrpc');
  const calls: RecordedCall[] = [];
  const toAdaptor: RecordedCall[] = [];
  let told = false;
  const inputEnded = Promise.withResolvers<Buffer>();
  const mainOutput = (payload: Buffer) => {
    // The first process writes once and then stays silent until it is killed; the exec ends with its input.
    if (bytesOf(payload, 2).length > 0) return inputEnded.promise;
    if (told) return undefined;
    told = true;
    return field(1, 'hello\n');
  };
  servers.push(
    await recordCalls(join(root, 'hypervisor.sock'), toAdaptor, {
      'hypervisor.Hypervisor/CreateVM': field(1, `remote://${agentSocket}`),
      'hypervisor.Hypervisor/StartVM': nothing,
      'hypervisor.Hypervisor/StopVM': nothing,
    }),
    await recordCalls(agentSocket, calls, {
      'grpc.Health/Check': number(1, 1),
      ...Object.fromEntries(
        [
          'CreateSandbox',
          'GetGuestDetails',
          'CreateContainer',
          'StartContainer',
          'CopyFile',
          'ExecProcess',
          'SignalProcess',
          'TtyWinResize',
          'UpdateContainer',
          'RemoveContainer',
          'PauseContainer',
          'ResumeContainer',
        ].map((method) => [agent(method), nothing]),
      ),
      // StatsContainerResponse{cgroup_stats=1{cpu_stats=1{cpu_usage=1{total_usage=1}}, memory_stats=2{usage=2{usage=1}}}}
      [agent('StatsContainer')]: field(
        1,
        field(1, field(1, number(1, 5_000_000))),
        field(2, field(2, number(1, 4096))),
      ),
      [agent('ReadStdout')]: mainOutput,
      [agent('ReadStderr')]: (payload) => (bytesOf(payload, 2).length > 0 ? nothing : undefined),
      [agent('WriteStdin')]: (payload) => number(1, bytesOf(payload, 3).length),
      [agent('CloseStdin')]: () => {
        inputEnded.resolve(nothing);
        return nothing;
      },
      [agent('WaitProcess')]: (payload) => (bytesOf(payload, 2).length > 0 ? number(1, 3) : undefined),
    }),
  );
  const annotations = {
    'io.kubernetes.cri.container-type': 'container',
    'io.kubernetes.cri.container-name': 'main',
    'io.kubernetes.cri.image-name': image,
    'io.kubernetes.cri.sandbox-id': 'sandbox1',
  };
  const sandboxBundle = writeBundle('sandbox', {
    ociVersion: '1.2.1',
    hostname: 'pod',
    process: { args: ['/pause'], cwd: '/' },
    annotations: { 'io.kubernetes.cri.container-type': 'sandbox', 'io.kubernetes.cri.sandbox-name': 'pod' },
    linux: { namespaces: [{ type: 'network', path: '/run/netns/x' }] },
  });
  writeFileSync(join(root, 'app.conf'), 'a = 1\n');
  chmodSync(join(root, 'app.conf'), 0o640);
  const bundle = writeBundle('main', {
    ociVersion: '1.2.1',
    process: {
      args: ['/bin/app', '-x'],
      env: ['PATH=/bin', 'A=1'],
      cwd: '/work',
      user: { uid: 1000, gid: 2000, additionalGids: [3000, 4000] },
      capabilities: { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 512 }],
      noNewPrivileges: true,
      oomScoreAdj: -998,
      apparmorProfile: 'of-the-node',
      selinuxLabel: 'of:the:node',
    },
    root: { path: 'rootfs', readonly: true },
    hooks: { createRuntime: [{ path: '/of/the/node' }] },
    annotations,
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec'] },
      { destination: '/etc/app.conf', type: 'bind', source: join(root, 'app.conf'), options: ['rbind', 'ro'] },
    ],
    linux: {
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        memory: { limit: 67_108_864 },
        cpu: { shares: 102, quota: 50_000, period: 100_000, cpus: '0-3', mems: '0' },
        pids: { limit: 100 },
      },
      cgroupsPath: '/kubepods/pod1/main',
      namespaces: [
        { type: 'pid' },
        { type: 'ipc', path: '/proc/1/ns/ipc' },
        { type: 'mount' },
        { type: 'network', path: '/x' },
      ],
      seccomp: { defaultAction: 'SCMP_ACT_ERRNO' },
      maskedPaths: ['/proc/kcore'],
      readonlyPaths: ['/proc/sys'],
    },
  });
  const configuration = join(root, 'shim.json');
  writeFileSync(configuration, JSON.stringify({ hypervisorSocket: join(root, 'hypervisor.sock') }));
  const publisher = new EventPublisher('', 'k8s.io', log);
  const pod = new Pod({ socketPath: join(root, 'shim.sock'), publisher, log });
  const task = new TaskService(pod, publisher, () => undefined).implementation;
  const streams = { stdin: '', stdout: '', stderr: '', terminal: false };
  await pod.create('sandbox1', sandboxBundle, streams, configuration);
  calls.length = 0;

  const main = { id: 'main1', execId: '' };
  const exec = { id: 'main1', execId: 'exec1' };
  const input = join(root, 'stdin');
  execFileSync('mkfifo', [input]);
  const container = await pod.create('main1', bundle, streams, configuration);
  await task.start(main);
  await task.update({ id: 'main1', resources: json('x', { memory: { limit: 134_217_728 }, cpu: { quota: -1 } }) });
  const { stats } = await task.stats({ id: 'main1' });
  expect(stats?.value.length).toBeGreaterThan(0);
  await task.resizePty({ ...main, width: 99, height: 33 });
  await task.pause({ id: 'main1' });
  await task.resume({ id: 'main1' });
  await task.kill({ ...main, signal: 15, all: false });
  task.exec({
    ...exec,
    stdin: input,
    stdout: '',
    stderr: '',
    terminal: false,
    spec: json('x', { args: ['/bin/true'], cwd: '/', user: { uid: 1000, gid: 2000 } }),
  });
  await task.start(exec);
  writeFileSync(input, 'typed\n');
  task.closeIO({ ...exec, stdin: true });
  expect(await task.wait(exec)).toMatchObject({ exitStatus: 3 });
  await task.kill({ ...main, signal: 9, all: true });
  await pod.remove(container);
  await pod.stop('test');
  const sent = (method: string) => calls.filter((call) => call.method === agent(method)).map(({ payload }) => payload);
  const hex = (of: readonly (Buffer | undefined)[]) => of.map((payload) => payload?.toString('hex'));
  // CopyFileRequest{path=1, file_size=2, file_mode=3, dir_mode=4, uid=5, gid=6, offset=7, data=8}; owner root is left out.
  const [copy = nothing] = sent('CopyFile');
  const guestPath = bytesOf(copy, 1).toString();
  expect(guestPath).toMatch(/^\/run\/kata-containers\/shared\/containers\/main1-[0-9a-f]{16}-app\.conf$/);
  expect(hex(sent('CopyFile'))).toEqual(
    hex([message(field(1, guestPath), number(2, 6), number(3, 0o100640), number(4, 0o750), field(8, 'a = 1\n'))]),
  );
  const processFields = message(
    field(3, number(1, 1000), number(2, 2000), field(3, Buffer.from([0xb8, 0x17, 0xa0, 0x1f]))),
    texts(4, ['/bin/app', '-x']),
    texts(5, ['PATH=/bin', 'A=1']),
    field(6, '/work'),
    field(7, texts(1, ['CAP_KILL']), texts(2, ['CAP_KILL']), texts(4, ['CAP_KILL'])),
    field(8, field(1, 'RLIMIT_NOFILE'), number(2, 1024), number(3, 512)),
    number(9, true),
    number(11, -998n),
  );
  const specification = message(
    field(1, '1.2.1'),
    field(2, processFields),
    field(3, field(1, '/run/kata-containers/main1/rootfs'), number(2, true)),
    field(5, field(1, '/proc'), field(2, 'proc'), field(3, 'proc'), texts(4, ['nosuid', 'noexec'])),
    field(5, field(1, '/etc/app.conf'), field(2, guestPath), field(3, 'bind'), texts(4, ['rbind', 'ro'])),
    map(7, {
      ...annotations,
      'io.katacontainers.pkg.oci.bundle_path': bundle,
      'io.katacontainers.pkg.oci.container_type': 'pod_container',
    }),
    field(
      8,
      field(4, field(2, number(1, 67_108_864)), field(3, number(1, 102), number(2, 50_000), number(3, 100_000))),
      field(5, '/kubepods/pod1/main'),
      field(6, field(1, 'ipc')),
      field(6, field(1, 'mount')),
      texts(10, ['/proc/kcore']),
      texts(11, ['/proc/sys']),
    ),
  );
  const rootFilesystem = message(
    field(1, 'image_guest_pull'),
    field(2, `image_guest_pull=${JSON.stringify({ metadata: annotations })}`),
    field(3, image),
    field(4, 'overlay'),
    field(6, '/run/kata-containers/main1/rootfs'),
  );
  expect(hex(sent('CreateContainer'))).toEqual(
    hex([message(field(1, 'main1'), field(5, rootFilesystem), field(6, specification))]),
  );
  const target = field(1, 'main1');
  const execTarget = message(target, field(2, 'exec1'));
  expect(hex(sent('StartContainer'))).toEqual(hex([target]));
  expect(hex(sent('UpdateContainer'))).toEqual(
    hex([message(target, field(2, field(2, number(1, 134_217_728)), field(3, number(2, -1n))))]),
  );
  expect(hex(sent('StatsContainer'))).toEqual(hex([target]));
  expect(hex(sent('TtyWinResize'))).toEqual(hex([message(target, number(3, 33), number(4, 99))]));
  expect(hex(sent('PauseContainer'))).toEqual(hex([target]));
  expect(hex(sent('ResumeContainer'))).toEqual(hex([target]));
  const execProcess = message(field(3, number(1, 1000), number(2, 2000)), texts(4, ['/bin/true']), field(6, '/'));
  expect(hex(sent('ExecProcess'))).toEqual(hex([message(execTarget, field(4, execProcess))]));
  expect(hex(sent('WriteStdin'))).toEqual(hex([message(execTarget, field(3, 'typed\n'))]));
  expect(hex(sent('CloseStdin'))).toEqual(hex([execTarget]));
  expect(hex(sent('WaitProcess'))).toContain(execTarget.toString('hex'));
  expect(hex(sent('ReadStdout')).slice(0, 1)).toEqual(hex([message(target, number(3, 65_536))]));
  expect(hex(sent('ReadStderr'))).toContain(message(execTarget, number(3, 65_536)).toString('hex'));
  // By SIGTERM, by SIGKILL to all, and once more before it is removed.
  expect(hex(sent('SignalProcess'))).toEqual(
    hex([message(target, number(3, 15)), message(target, number(3, 9)), message(target, number(3, 9))]),
  );
  expect(hex(sent('RemoveContainer'))).toEqual(hex([message(target, number(2, 10))]));
  // What only waits has no deadline; what makes and removes something has one.
  const timed = (method: string) =>
    calls.filter((call) => call.method === agent(method)).map((call) => call.timeoutNano > 0n);
  for (const method of ['WaitProcess', 'ReadStdout', 'ReadStderr', 'GetOOMEvent'])
    expect(timed(method)).not.toContain(true);
  for (const method of ['CopyFile', 'CreateContainer', 'StartContainer', 'RemoveContainer'])
    expect(timed(method)).toEqual([true]);
  expect(calls.every(({ frame }) => frame.type === 1 && frame.flags === 0 && frame.stream % 2 === 1)).toBe(true);
  expect(toAdaptor.map(({ method }) => method.split('/')[1])).toEqual(['CreateVM', 'StartVM', 'StopVM']);
});
