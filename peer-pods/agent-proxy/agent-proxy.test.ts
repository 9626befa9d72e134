import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { RequestSchema } from '@sealpod/protocol/gen/ttrpc/envelope_pb';
import {
  createClient,
  FrameChannel,
  MessageType,
  TtrpcConnection,
  TtrpcError,
  TtrpcServer,
} from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AgentProxy } from './agent-proxy.ts';
import { spawnGuest } from './guest-for-tests.ts';

let folder: string;
let guestSocket: string;
let proxySocket: string;
let cleanups: (() => unknown)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-proxy-'));
  guestSocket = join(folder, 'guest');
  proxySocket = join(folder, 'agent.ttrpc');
  cleanups = [() => rmSync(folder, { recursive: true, force: true })];
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function guest(): Promise<ChildProcess> {
  const child = await spawnGuest(guestSocket, join(folder, 'journal'));
  cleanups.push(() => child.kill('SIGKILL'));
  return child;
}

async function proxy(
  options: { reconnectMs?: number; settleMs?: number; resumed?: boolean } = {},
): Promise<AgentProxy> {
  const made = new AgentProxy({ socketPath: guestSocket, settleMs: 20, ...options });
  cleanups.push(() => made.close());
  await made.listen(proxySocket);
  return made;
}

async function client(): Promise<{
  connection: TtrpcConnection;
  agent: ReturnType<typeof agentOf>;
  health: ReturnType<typeof healthOf>;
}> {
  const connection = await TtrpcConnection.connect(proxySocket);
  cleanups.push(() => connection.close());
  return { connection, agent: agentOf(connection), health: healthOf(connection) };
}
const agentOf = (connection: TtrpcConnection) => createClient(AgentService, connection);
const healthOf = (connection: TtrpcConnection) => createClient(Health, connection);

const failure = (promise: Promise<unknown>): Promise<TtrpcError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: TtrpcError) => error,
  );

describe('agent proxy', () => {
  it('serves two clients side by side, whose stream ids are the same', async () => {
    await guest();
    await proxy();
    expect(statSync(proxySocket).mode & 0o777).toBe(0o600);
    const [one, two] = [await client(), await client()];
    const blocked = failure(one.agent.waitProcess({ containerId: 'a' }, { timeoutMs: 1500 }));
    const reads = Array.from({ length: 100 }, async (_, index) => {
      const { agent } = index % 2 ? one : two;
      const { data } = await agent.readStdout({ containerId: String(index % 10), len: 1000 + index });
      expect(Buffer.from(data).equals(Buffer.alloc(1000 + index, String(index % 10)))).toBe(true);
    });
    await Promise.all(reads);
    // A blocked call of one client stands in nobody's way.
    expect((await two.health.check({})).status).toBe(1);
    expect(await blocked).toMatchObject({ status: 4, message: 'timeout' });
  });

  it('passes deadlines, metadata, failures and large messages on untouched', async () => {
    await guest();
    await proxy();
    const { agent, connection } = await client();
    const stats = await agent.statsContainer(
      { containerId: 'a' },
      { timeoutMs: 60_000, metadata: { tag: ['x', 'y'] } },
    );
    const { timeout, tags } = stats.cgroupStats?.memoryStats?.stats ?? {};
    expect(tags).toBe(2n);
    expect(Number(timeout)).toBeGreaterThan(58_000);
    expect(Number(timeout)).toBeLessThanOrEqual(60_000);
    expect(await failure(agent.startContainer({ containerId: 'c' }))).toMatchObject({
      status: 7,
      message: 'StartContainerRequest is blocked by policy: c',
    });
    expect(await failure(connection.call('no.Such', 'Thing', new Uint8Array()))).toMatchObject({
      status: 3,
      message: 'no.Such service does not exist',
    });
    const data = new Uint8Array(4_194_304 - 200);
    expect(await agent.writeStdin({ containerId: 'a', data })).toMatchObject({ len: data.length });
    expect(await failure(agent.readStdout({ containerId: 'a', len: 4_194_304 }))).toMatchObject({ status: 8 });
    expect((await agent.readStdout({ containerId: 'a', len: 10 })).data).toHaveLength(10);
  });

  it('passes streams on, and ends a call at its limit where the guest does not', async () => {
    // A guest that answers each message of a stream with the same bytes, and no other call at all.
    const listener = createServer((socket) => {
      const channel = new FrameChannel(socket, {
        frame: ({ streamId, type, flags, payload = new Uint8Array() }) => {
          if (type !== MessageType.data) return;
          channel.send({ streamId, type, flags }, payload);
        },
        end: () => channel.destroy(),
        close: () => undefined,
      });
      cleanups.push(() => channel.destroy());
    });
    await new Promise<void>((resolve) => listener.listen(guestSocket, resolve));
    cleanups.push(() => listener.close());
    await proxy();
    const { connection, health } = await client();
    const stream = connection.openStream('no.Such', 'Stream', { clientStreaming: true, serverStreaming: true });
    for (const text of ['one', 'two']) await stream.send(Buffer.from(text));
    stream.closeSend();
    const answers: string[] = [];
    for await (const message of stream.messages) answers.push(Buffer.from(message).toString());
    expect(answers).toEqual(['one', 'two']);

    // A client that does not keep its own limit: the request is sent as the bytes that a call with one has.
    const payload = toBinary(
      RequestSchema,
      create(RequestSchema, { service: 's', method: 'm', timeoutNano: 50_000_000n }),
    );
    const raw = connect(proxySocket);
    cleanups.push(() => raw.destroy());
    const answered = Promise.withResolvers<string>();
    const channel = new FrameChannel(raw, {
      frame: ({ payload: bytes }) => answered.resolve(Buffer.from(bytes ?? []).toString('latin1')),
      end: () => undefined,
      close: () => undefined,
    });
    channel.send({ streamId: 1, type: MessageType.request, flags: 0 }, payload);
    expect(await answered.promise).toContain('timeout');
    expect(await failure(health.check({}, { timeoutMs: 50 }))).toMatchObject({ status: 4 });
  });

  it('gives the guest call up when its client is gone', async () => {
    const signalled = Promise.withResolvers<void>();
    const seen = Promise.withResolvers<void>();
    const inner = new TtrpcServer().addService(Health, {
      check: (_, { signal }) => {
        seen.resolve();
        return new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            signalled.resolve();
            reject(signal.reason);
          });
        });
      },
    });
    await inner.listen(guestSocket);
    cleanups.push(() => inner.close());
    const made = await proxy();
    const { connection, health } = await client();
    const call = failure(health.check({}));
    await seen.promise;
    connection.close();
    await call;
    // ttrpc has no message for it, so the guest learns it with the end of the channel at the latest.
    await made.close();
    await signalled.promise;
  });

  it('connects again after the channel was lost; calls under way fail, the clients stay connected', async () => {
    const first = await guest();
    await proxy();
    const { agent, health } = await client();
    const before = await health.version({});
    const underWay = failure(agent.waitProcess({ containerId: 'a' }));
    await health.check({});
    first.kill('SIGKILL');
    expect(await underWay).toMatchObject({
      status: 14,
      message: 'AGENT_UNREACHABLE: the connection to the guest was lost',
    });
    await once(first, 'exit').catch(() => undefined);
    const waiting = health.version({});
    await guest();
    expect((await waiting).agentVersion).not.toBe(before.agentVersion);
  });

  it('says so, in the time it was given, where the guest does not come back', async () => {
    await proxy({ reconnectMs: 100 });
    const { health } = await client();
    const error = await failure(health.check({}));
    expect(error).toMatchObject({
      status: 14,
      message: `AGENT_UNREACHABLE: the guest cannot be reached at ${guestSocket}`,
    });
    expect(await failure(health.check({}, { timeoutMs: 30 }))).toMatchObject({ status: 4 });
  });

  it('gets back in step with a guest that was left in the middle of a frame', async () => {
    // Serves a connection only after the one before was seen to end: the first swallows what it gets as the rest of an old frame.
    let count = 0;
    const inner = new TtrpcServer().addService(Health, {
      check: () => ({ status: 1 }),
      version: () => ({ agentVersion: 'in step' }),
    });
    const sockets: Socket[] = [];
    const listener = createServer((socket) => {
      sockets.push(socket);
      if (count++ === 0) socket.resume();
      else inner.serve(socket);
    });
    await new Promise<void>((resolve) => listener.listen(guestSocket, resolve));
    cleanups.push(
      () => new Promise((resolve) => listener.close(resolve)),
      () => {
        for (const socket of sockets) socket.destroy();
      },
    );
    await proxy({ resumed: true, reconnectMs: 10_000 });
    const { health } = await client();
    expect((await health.version({})).agentVersion).toBe('in step');
    expect(count).toBe(2);
  });

  it('leaves a connection alone that never says anything: runtime-rs dials once more for a log, and again when it ends', async () => {
    await guest();
    const made = await proxy();
    const listener = connect(proxySocket);
    cleanups.push(() => listener.destroy());
    await once(listener, 'connect');
    let said = 0;
    let ended = false;
    listener.on('data', (bytes: Buffer) => {
      said += bytes.length;
    });
    listener.on('close', () => {
      ended = true;
    });
    const { health } = await client();
    for (let call = 0; call < 20; call++) expect((await health.check({ service: '' })).status).toBe(1);
    expect([said, ended]).toEqual([0, false]);
    const closed = once(listener, 'close');
    await made.close();
    await closed;
    expect(said).toBe(0);
  });

  it('closing ends both sides and removes the socket', async () => {
    await guest();
    const made = await proxy();
    const { connection, agent } = await client();
    const call = failure(agent.waitProcess({ containerId: 'a' }));
    await made.guest.call(Health.typeName, 'Check', new Uint8Array());
    await made.close();
    expect((await call).status).toBe(14);
    await connection.closed;
    expect(() => statSync(proxySocket)).toThrow('ENOENT');
    await expect(made.guest.call(Health.typeName, 'Check', new Uint8Array())).rejects.toBeInstanceOf(TtrpcError);
  });
});
