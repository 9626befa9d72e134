import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { EventPublisher } from '../events/publisher.ts';
import type { Logger } from '../log.ts';
import { readState, statePath } from '../state-file.ts';
import { Pod } from './pod.ts';

/*
 * Golden messages: what the shim puts on the wire, frame by frame, against bytes built here from the field tables of the
 * protocols (ttrpc: 10-byte header, Request{service=1, method=2, payload=3, timeout_nano=4}), with nothing shared with
 * the code under test.
 */
const text = (number: number, value: string): Buffer => bytes(number, Buffer.from(value));
const varint = (value: number): number[] =>
  value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))];
const bytes = (number: number, value: Buffer): Buffer =>
  Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(value.length)]), value]);
const flag = (number: number): Buffer => Buffer.from([number * 8, 1]);

/** Reads one length-delimited field of a message. */
function field(message: Buffer, wanted: number): Buffer | undefined {
  for (let at = 0; at < message.length; ) {
    const number = (): number => {
      let value = 0;
      for (let scale = 1; ; scale *= 128) {
        const byte = message[at++] ?? 0;
        value += (byte & 127) * scale;
        if (byte < 128) return value;
      }
    };
    const tag = number();
    const length = number();
    if (tag % 8 === 0) continue;
    if (tag >> 3 === wanted) return message.subarray(at, at + length);
    at += length;
  }
  return undefined;
}

interface Call {
  readonly method: string;
  readonly payload: Buffer;
  readonly header: { stream: number; type: number; flags: number };
}

/** Records raw frames and answers by method; a method without answer is never answered. */
function recorder(path: string, calls: Call[], answers: Record<string, Buffer>): Promise<Server> {
  const server = createServer((socket) => {
    let buffer = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      buffer = Buffer.concat([buffer, chunk]);
      while (buffer.length >= 10 && buffer.length >= 10 + buffer.readUInt32BE(0)) {
        const length = buffer.readUInt32BE(0);
        const body = Buffer.from(buffer.subarray(10, 10 + length));
        const header = { stream: buffer.readUInt32BE(4), type: buffer[8] ?? -1, flags: buffer[9] ?? -1 };
        buffer = buffer.subarray(10 + length);
        const method = `${field(body, 1)}/${field(body, 2)}`;
        calls.push({ method, payload: field(body, 3) ?? Buffer.alloc(0), header });
        const answer = answers[method];
        if (answer === undefined) continue;
        const response = bytes(2, answer);
        const head = Buffer.alloc(10);
        head.writeUInt32BE(response.length, 0);
        head.writeUInt32BE(header.stream, 4);
        head[8] = 2;
        socket.write(Buffer.concat([head, response]));
      }
    });
  });
  return new Promise((resolve) => server.listen(path, () => resolve(server)));
}

let root: string;
let servers: Server[] = [];
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sealpod-golden-'));
});
afterEach(() => {
  for (const server of servers) server.close();
  servers = [];
  rmSync(root, { recursive: true, force: true });
});
const log: Logger = { info: () => undefined, debug: () => undefined, close: () => undefined };
const nothing = Buffer.alloc(0);

test('the calls of a sandbox, in order, byte for byte', async () => {
  const agentSocket = join(root, 'agent.ttrpc');
  const hypervisorSocket = join(root, 'hypervisor.sock');
  const toAdaptor: Call[] = [];
  const toAgent: Call[] = [];
  servers.push(
    await recorder(hypervisorSocket, toAdaptor, {
      'hypervisor.Hypervisor/CreateVM': text(1, agentSocket),
      'hypervisor.Hypervisor/StartVM': nothing,
      'hypervisor.Hypervisor/StopVM': nothing,
    }),
    await recorder(agentSocket, toAgent, {
      'grpc.Health/Check': Buffer.from([8, 1]),
      'grpc.AgentService/CreateSandbox': nothing,
      'grpc.AgentService/GetGuestDetails': nothing,
      'grpc.AgentService/CreateContainer': nothing,
      'grpc.AgentService/StartContainer': nothing,
    }),
  );
  const bundle = join(root, 'bundle');
  mkdirSync(bundle);
  writeFileSync(join(root, 'resolv.conf'), '# comment\nnameserver 192.0.2.1\n\nsearch a.test\n');
  writeFileSync(
    join(bundle, 'config.json'),
    JSON.stringify({
      ociVersion: '1.0.2',
      hostname: 'pod',
      process: { args: ['/pause'], cwd: '/' },
      annotations: {
        'io.kubernetes.cri.container-type': 'sandbox',
        'io.kubernetes.cri.sandbox-name': 'pod',
        'io.kubernetes.cri.sandbox-namespace': 'default',
      },
      // A device of the guest, so that nothing has to be copied and yet the DNS lines are there.
      mounts: [{ destination: '/etc/resolv.conf', source: join(root, 'resolv.conf'), type: 'none' }],
      linux: { namespaces: [{ type: 'network', path: '/run/netns/x' }] },
    }),
  );
  const configuration = join(root, 'shim.json');
  writeFileSync(configuration, JSON.stringify({ hypervisorSocket }));
  const socketPath = join(root, 'shim.sock');
  const pod = new Pod({ socketPath, publisher: new EventPublisher('', 'k8s.io', log), log });
  const streams = { stdin: '', stdout: '', stderr: '', terminal: false };
  const container = await pod.create('sandbox1', bundle, streams, configuration);
  expect(readState(statePath(socketPath))?.hypervisorSocket).toBe(hypervisorSocket);
  await pod.start(container);
  await expect.poll(() => toAgent.at(-1)?.method).toBe('grpc.AgentService/WaitProcess');
  await pod.stop('test');
  expect((await container.process.exited).status).toBe(137);
  expect(readState(statePath(socketPath))?.hypervisorSocket).toBe('');
  expect(pod.machineLeft).toBe(false);

  expect(toAdaptor.map(({ method }) => method)).toEqual([
    'hypervisor.Hypervisor/CreateVM',
    'hypervisor.Hypervisor/StartVM',
    'hypervisor.Hypervisor/StopVM',
  ]);
  const annotation = (key: string, value: string): Buffer => bytes(2, Buffer.concat([text(1, key), text(2, value)]));
  const setting = (name: string): Buffer => annotation(`io.katacontainers.config.hypervisor.${name}`, '');
  const expectedCreate = Buffer.concat([
    text(1, 'sandbox1'),
    annotation('io.kubernetes.cri.sandbox-name', 'pod'),
    annotation('io.kubernetes.cri.sandbox-namespace', 'default'),
    ...[
      'machine_type',
      'image',
      'default_vcpus',
      'default_memory',
      'default_gpus',
      'default_gpu_model',
      'cc_init_data',
    ].map(setting),
    text(3, '/run/netns/x'),
  ]);
  expect(toAdaptor.map(({ payload }) => payload.toString('latin1'))).toEqual([
    expectedCreate.toString('latin1'),
    text(1, 'sandbox1').toString('latin1'),
    text(1, 'sandbox1').toString('latin1'),
  ]);

  const asked = toAgent.filter(({ method }) => !method.endsWith('GetOOMEvent'));
  expect(asked.map(({ method }) => method)).toEqual([
    'grpc.Health/Check',
    'grpc.AgentService/CreateSandbox',
    'grpc.AgentService/GetGuestDetails',
    'grpc.AgentService/CreateContainer',
    'grpc.AgentService/StartContainer',
    'grpc.AgentService/WaitProcess',
  ]);
  // One connection: request frames without flags, odd stream ids that rise.
  expect(toAgent.every(({ header }) => header.type === 1 && header.flags === 0)).toBe(true);
  expect(toAgent.map(({ header }) => header.stream)).toEqual(toAgent.map((_, index) => 2 * index + 1));
  const storage = Buffer.concat([
    text(1, 'ephemeral'),
    text(3, 'shm'),
    text(4, 'tmpfs'),
    ...['noexec', 'nosuid', 'nodev', 'mode=1777', 'size=67108864'].map((option) => text(5, option)),
    text(6, '/run/kata-containers/sandbox/shm'),
  ]);
  const [, createSandbox, details, createContainer, start, wait] = asked.map(({ payload }) =>
    payload.toString('latin1'),
  );
  expect(createSandbox).toBe(
    Buffer.concat([
      text(1, 'pod'),
      text(2, 'nameserver 192.0.2.1'),
      text(2, 'search a.test'),
      bytes(3, storage),
      text(5, 'sandbox1'),
    ]).toString('latin1'),
  );
  expect(details).toBe(Buffer.concat([flag(1), flag(2)]).toString('latin1'));
  const metadata = {
    'io.kubernetes.cri.container-type': 'sandbox',
    'io.kubernetes.cri.sandbox-name': 'pod',
    'io.kubernetes.cri.sandbox-namespace': 'default',
  };
  const rootFilesystem = Buffer.concat([
    text(1, 'image_guest_pull'),
    text(2, `image_guest_pull=${JSON.stringify({ metadata })}`),
    text(3, 'pause'),
    text(4, 'overlay'),
    text(6, '/run/kata-containers/sandbox1/rootfs'),
  ]);
  expect(
    createContainer?.startsWith(Buffer.concat([text(1, 'sandbox1'), bytes(5, rootFilesystem)]).toString('latin1')),
  ).toBe(true);
  expect(start).toBe(text(1, 'sandbox1').toString('latin1'));
  expect(wait).toBe(text(1, 'sandbox1').toString('latin1'));
});

test('an adaptor that is away is named, and no state is left to clean up for a machine that never was', async () => {
  const bundle = join(root, 'bundle');
  mkdirSync(bundle);
  writeFileSync(join(bundle, 'config.json'), '{"annotations":{"io.kubernetes.cri.container-type":"sandbox"}}');
  writeFileSync(join(root, 'shim.json'), JSON.stringify({ hypervisorSocket: join(root, 'none.sock') }));
  const pod = new Pod({ socketPath: join(root, 's'), publisher: new EventPublisher('', 'x', log), log });
  const streams = { stdin: '', stdout: '', stderr: '', terminal: false };
  await expect(pod.create('a', bundle, streams, join(root, 'shim.json'))).rejects.toThrow(
    /no adaptor answers on .*none\.sock/,
  );
  expect(readState(statePath(join(root, 's')))?.hypervisorSocket).toBe('');
});

test('a pod whose machine still starts is not idle: its shim must not end, however long that takes', async () => {
  const hypervisorSocket = join(root, 'hypervisor.sock');
  const toAdaptor: Call[] = [];
  servers.push(
    await recorder(hypervisorSocket, toAdaptor, {
      'hypervisor.Hypervisor/CreateVM': text(1, join(root, 'agent.ttrpc')),
      'hypervisor.Hypervisor/StopVM': nothing,
    }),
  );
  const bundle = join(root, 'bundle');
  mkdirSync(bundle);
  writeFileSync(join(bundle, 'config.json'), '{"annotations":{"io.kubernetes.cri.container-type":"sandbox"}}');
  writeFileSync(join(root, 'shim.json'), JSON.stringify({ hypervisorSocket, hypervisorTimeout: 1 }));
  const pod = new Pod({ socketPath: join(root, 's'), publisher: new EventPublisher('', 'x', log), log });
  expect(pod.idle).toBe(true);
  const streams = { stdin: '', stdout: '', stderr: '', terminal: false };
  const created = pod.create('a', bundle, streams, join(root, 'shim.json')).then(
    () => 'created',
    () => 'gave up',
  );
  await expect.poll(() => toAdaptor.at(-1)?.method).toBe('hypervisor.Hypervisor/StartVM');
  expect(pod.idle).toBe(false);
  expect(await created).toBe('gave up');
  expect(pod.idle).toBe(true);
});
