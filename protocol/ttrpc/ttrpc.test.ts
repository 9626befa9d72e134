import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Duplex, duplexPair } from 'node:stream';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { SealpodError } from '../errors.ts';
import { AttestationAgentService } from '../gen/coco/attestation_agent_pb.ts';
import { HealthCheckResponse_ServingStatus, Health as StandardHealth } from '../gen/grpc/health_v1_pb.ts';
import { AgentService } from '../gen/kata/agent_pb.ts';
import { Health } from '../gen/kata/health_pb.ts';
import { RequestSchema, ResponseSchema } from '../gen/ttrpc/envelope_pb.ts';
import { encodeHeader, type Frame, FrameDecoder } from './frame.ts';
import { createClient, maxMessageBytes, Status, TtrpcConnection, TtrpcError, TtrpcServer } from './index.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sealpod-ttrpc-'));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A connection to the server over an in-memory stream pair. */
function connected(server: TtrpcServer): TtrpcConnection {
  const [ours, theirs] = duplexPair();
  server.serve(theirs);
  const connection = new TtrpcConnection(ours);
  cleanups.push(
    () => connection.close(),
    () => server.close(),
  );
  return connection;
}

/** The other end of a server's stream, in frames. */
function wire(server: TtrpcServer): {
  stream: Duplex;
  frames: Frame[];
  count(n: number): Promise<Frame[]>;
  send(hex: string): void;
} {
  const [ours, theirs] = duplexPair();
  server.serve(theirs);
  cleanups.push(() => server.close());
  const frames: Frame[] = [];
  const decoder = new FrameDecoder();
  const waiting = new Set<() => void>();
  ours.on('data', (chunk: Buffer) => {
    frames.push(...decoder.push(chunk));
    for (const wake of waiting) wake();
  });
  return {
    stream: ours,
    frames,
    send: (hex) => ours.write(Buffer.from(hex, 'hex')),
    count: (n) =>
      new Promise((resolve) => {
        const check = () => {
          if (frames.length < n) return;
          waiting.delete(check);
          resolve(frames);
        };
        waiting.add(check);
        check();
      }),
  };
}

function requestHex(
  streamId: number,
  service: string,
  method: string,
  options: { payload?: Uint8Array; timeoutNano?: bigint; flags?: number; type?: number } = {},
): string {
  const { payload = new Uint8Array(), timeoutNano = 0n, flags = 0, type = 1 } = options;
  const body = toBinary(RequestSchema, create(RequestSchema, { service, method, payload, timeoutNano }));
  return Buffer.concat([encodeHeader({ streamId, type, flags }, body.length), body]).toString('hex');
}

const statusOf = (frame: Frame | undefined) => {
  const { status } = fromBinary(ResponseSchema, frame?.payload ?? new Uint8Array());
  return { streamId: frame?.streamId, code: status?.code, message: status?.message };
};

const rejection = async (promise: Promise<unknown>): Promise<TtrpcError> => {
  const error: unknown = await promise.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof TtrpcError)) throw error;
  return error;
};

describe('unary calls', () => {
  it('carry requests, answers, metadata and deadlines', async () => {
    const server = new TtrpcServer().addService(Health, {
      check: (request, context) => {
        expect(context).toMatchObject({
          service: 'grpc.Health',
          method: 'Check',
          timeoutMs: 5000,
          metadata: { a: ['1', '2'], __proto__: ['x'] },
        });
        expect(request.service).toBe('agent');
        return { status: 1 };
      },
    });
    const client = createClient(Health, connected(server));
    const metadata = Object.fromEntries([
      ['a', ['1', '2']],
      ['__proto__', ['x']],
    ]);
    await expect(client.check({ service: 'agent' }, { timeoutMs: 5000, metadata })).resolves.toMatchObject({
      status: 1,
    });
  });

  it('have the documented bytes', async () => {
    const { send, count } = wire(
      new TtrpcServer().addService(Health, { version: () => ({ grpcVersion: '0', agentVersion: '1' }) }),
    );
    // Request{service="grpc.Health", method="Version"} on stream 1, Response{status={}, payload={"0","1"}}.
    send(
      `${'00000016000000010100'}${'0a0b'}${Buffer.from('grpc.Health').toString('hex')}${'1207'}${Buffer.from('Version').toString('hex')}`,
    );
    const [frame] = await count(1);
    expect(Buffer.from(frame?.payload ?? []).toString('hex')).toBe(`0a00${'1206'}${'0a0130'}${'120131'}`);
    expect(frame).toMatchObject({ streamId: 1, type: 2, flags: 0 });
  });

  it('run side by side on one connection and are answered out of order', async () => {
    const gates = new Map<string, () => void>();
    const server = new TtrpcServer().addService(AgentService, {
      readStdout: async (request) => {
        await new Promise<void>((resolve) => gates.set(request.containerId, resolve));
        return { data: Buffer.from(request.containerId) };
      },
      startContainer: () => ({}),
    });
    const client = createClient(AgentService, connected(server));
    const finished: string[] = [];
    const calls = Array.from({ length: 200 }, (_, index) =>
      client.readStdout({ containerId: `c${index}` }).then(({ data }) => {
        finished.push(Buffer.from(data).toString());
      }),
    );
    // An unblocked call overtakes 200 blocked ones.
    await client.startContainer({ containerId: 'x' });
    expect(gates.size).toBe(200);
    expect(finished).toEqual([]);
    const order = [...gates.keys()].reverse();
    for (const id of order) gates.get(id)?.();
    await Promise.all(calls);
    expect(finished).toEqual(order);
  });

  it('give back any payload unchanged, through a raw relay as well', async () => {
    const server = new TtrpcServer().setFallback(async (service, method, payload) => {
      expect([service, method]).toEqual(['any.Service', 'Echo']);
      return payload;
    });
    const connection = connected(server);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), async (payload) => {
        expect(Buffer.from(await connection.call('any.Service', 'Echo', payload)).equals(Buffer.from(payload))).toBe(
          true,
        );
      }),
      { numRuns: 50 },
    );
  });
});

describe('failures', () => {
  const server = () =>
    new TtrpcServer().addService(AttestationAgentService, {
      getTeeType: () => ({ tee: 'sample' }),
      getToken: () => {
        throw new TtrpcError(Status.failedPrecondition, 'no key broker');
      },
      getEvidence: async () => {
        throw new SealpodError('AGENT_POLICY_DENY', 'GetEvidence is blocked by policy: ');
      },
      getAdditionalTees: () => {
        throw new Error('broken');
      },
    });

  it('carry the status of what was thrown', async () => {
    const client = createClient(AttestationAgentService, connected(server()));
    expect(await rejection(client.getToken({}))).toMatchObject({ status: 9, message: 'no key broker' });
    expect(await rejection(client.getEvidence({}))).toMatchObject({
      status: 7,
      message: 'AGENT_POLICY_DENY: GetEvidence is blocked by policy: ',
    });
    expect(await rejection(client.getAdditionalTees({}))).toMatchObject({ status: 13, message: 'broken' });
  });

  it('a status of 0 that is thrown does not become a success', async () => {
    const lying = new TtrpcServer().setFallback(async () => {
      throw new TtrpcError(0, 'oops');
    });
    expect(await rejection(connected(lying).call('a', 'b', new Uint8Array()))).toMatchObject({
      status: 2,
      message: 'oops',
    });
  });

  it('tell unknown services, unknown methods and unimplemented methods apart', async () => {
    const connection = connected(server());
    const call = (service: string, method: string) => rejection(connection.call(service, method, new Uint8Array()));
    const agent = 'attestation_agent.AttestationAgentService';
    expect(await call('no.Such', 'Method')).toMatchObject({ status: 3, message: 'no.Such service does not exist' });
    expect(await call(agent, 'NoSuch')).toMatchObject({ status: 12, message: 'NoSuch method' });
    expect(await call(agent, 'BindInitData')).toMatchObject({
      status: 5,
      message: `/${agent}/BindInitData is not supported`,
    });
    const shim = new TtrpcServer({ missingMethodStatus: Status.unimplemented }).addService(AttestationAgentService, {});
    expect((await rejection(connected(shim).call(agent, 'BindInitData', new Uint8Array()))).status).toBe(12);
  });

  it('a payload that is no protobuf is answered, and so is a broken envelope', async () => {
    const { send, count } = wire(server());
    send(
      requestHex(1, 'attestation_agent.AttestationAgentService', 'GetTeeType', {
        payload: Buffer.from('ffffff', 'hex'),
      }),
    );
    send('00000003000000030100ffffff');
    const frames = await count(2);
    expect(frames.map(statusOf).sort((a, b) => Number(a.streamId) - Number(b.streamId))).toMatchObject([
      { streamId: 1, code: 2 },
      { streamId: 3, code: 3 },
    ]);
  });

  it('a response that is not the promised message fails the call', async () => {
    const client = createClient(
      Health,
      connected(new TtrpcServer().setFallback(async () => Buffer.from('ffffff', 'hex'))),
    );
    expect(await rejection(client.check({}))).toMatchObject({
      status: 13,
      message: 'the response is not a grpc.HealthCheckResponse',
    });
  });
});

describe('stream ids', () => {
  it('must be odd; a finished or unary one may come again; frames of other types are ignored', async () => {
    const { send, count, frames } = wire(new TtrpcServer().addService(Health, { check: () => ({ status: 1 }) }));
    send(requestHex(2, 'grpc.Health', 'Check'));
    send(requestHex(0, 'grpc.Health', 'Check'));
    send(requestHex(1, 'grpc.Health', 'Check', { type: 2 }));
    send(requestHex(1, 'grpc.Health', 'Check', { type: 9 }));
    send(requestHex(5, 'grpc.Health', 'Check', { type: 3 }));
    send(requestHex(7, 'grpc.Health', 'Check', { flags: 0x80 }));
    send(requestHex(7, 'grpc.Health', 'Check'));
    await count(5);
    expect(frames.map(statusOf)).toEqual([
      { streamId: 2, code: 3, message: 'stream id must be odd' },
      { streamId: 0, code: 3, message: 'stream id must be odd' },
      { streamId: 5, code: 3, message: 'Stream is no longer active' },
      { streamId: 7, code: 0, message: '' },
      { streamId: 7, code: 0, message: '' },
    ]);
  });
});

describe('deadlines and cancellation', () => {
  const blocking = () => {
    const seen: { signal?: AbortSignal } = {};
    const server = new TtrpcServer().addService(Health, {
      check: (_, { signal }) => {
        seen.signal = signal;
        return new Promise(() => undefined);
      },
      version: () => ({ agentVersion: '1' }),
    });
    return { server, seen };
  };

  it('the server answers after the deadline of the request and aborts its handler', async () => {
    const { server, seen } = blocking();
    const { send, count } = wire(server);
    send(requestHex(1, 'grpc.Health', 'Check', { timeoutNano: 20_000_000n }));
    const [frame] = await count(1);
    expect(statusOf(frame)).toEqual({ streamId: 1, code: 4, message: 'timeout' });
    expect(seen.signal?.aborted).toBe(true);
  });

  it('a negative or absent timeout is none', async () => {
    const { server } = blocking();
    const { send, count } = wire(server);
    send(requestHex(1, 'grpc.Health', 'Version', { timeoutNano: -1n }));
    send(requestHex(3, 'grpc.Health', 'Version', { timeoutNano: 2n ** 62n }));
    expect((await count(2)).map(statusOf)).toMatchObject([{ code: 0 }, { code: 0 }]);
  });

  it('the client gives up by itself where the server is silent', async () => {
    const [ours] = duplexPair();
    const connection = new TtrpcConnection(ours);
    cleanups.push(() => connection.close());
    expect(await rejection(connection.call('a.B', 'C', new Uint8Array(), { timeoutMs: 10 }))).toMatchObject({
      status: 4,
      message: 'timeout',
    });
  });

  it('an aborted signal cancels one call and leaves the connection', async () => {
    const { server } = blocking();
    const client = createClient(Health, connected(server));
    const controller = new AbortController();
    const call = rejection(client.check({}, { signal: controller.signal }));
    controller.abort();
    expect(await call).toMatchObject({ status: 1, message: 'cancelled' });
    expect(await rejection(client.check({}, { signal: AbortSignal.abort() }))).toMatchObject({ status: 1 });
    await expect(client.version({})).resolves.toMatchObject({ agentVersion: '1' });
  });
});

describe('the limit of 4 MiB', () => {
  it('holds both ways, is answered, and leaves the connection usable', async () => {
    const server = new TtrpcServer().addService(AgentService, {
      readStdout: ({ len }) => ({ data: new Uint8Array(len) }),
      writeStdin: ({ data }) => ({ len: data.length }),
    });
    const client = createClient(AgentService, connected(server));
    expect(await rejection(client.writeStdin({ data: new Uint8Array(maxMessageBytes) }))).toMatchObject({ status: 8 });
    expect(await rejection(client.readStdout({ len: maxMessageBytes }))).toMatchObject({
      status: 8,
      message: expect.stringMatching(/^message length 41943\d\d exceed maximum message size of 4194304$/),
    });
    const fits = maxMessageBytes - 100;
    await expect(client.writeStdin({ data: new Uint8Array(fits) })).resolves.toMatchObject({ len: fits });
    expect((await client.readStdout({ len: fits })).data).toHaveLength(fits);
  });

  it('a server answers a longer request once all of it has come', async () => {
    const { stream, send, count, frames } = wire(new TtrpcServer().addService(Health, { version: () => ({}) }));
    const length = maxMessageBytes + 1;
    stream.write(encodeHeader({ streamId: 1, type: 1, flags: 0 }, length));
    stream.write(Buffer.alloc(length - 1));
    send(''); // nothing
    await new Promise(setImmediate);
    expect(frames).toHaveLength(0);
    stream.write(Buffer.alloc(1));
    await count(1);
    expect(statusOf(frames[0])).toEqual({
      streamId: 1,
      code: 3,
      message: 'message length 4194305 exceed maximum message size of 4194304',
    });
    send(requestHex(3, 'grpc.Health', 'Version'));
    expect(statusOf((await count(2))[1])).toMatchObject({ streamId: 3, code: 0 });
  });

  it('a client refuses a longer response and goes on', async () => {
    const [ours, theirs] = duplexPair();
    const connection = new TtrpcConnection(ours);
    cleanups.push(() => connection.close());
    const call = rejection(connection.call('a.B', 'C', new Uint8Array()));
    theirs.write(encodeHeader({ streamId: 1, type: 2, flags: 0 }, maxMessageBytes + 1));
    theirs.write(Buffer.alloc(maxMessageBytes + 1));
    expect(await call).toMatchObject({ status: 8 });
    const next = connection.call('a.B', 'C', new Uint8Array());
    const body = toBinary(ResponseSchema, create(ResponseSchema, { payload: Buffer.from('ok') }));
    theirs.write(Buffer.concat([encodeHeader({ streamId: 3, type: 2, flags: 0 }, body.length), body]));
    expect(Buffer.from(await next).toString()).toBe('ok');
  });
});

describe('closing', () => {
  it('fails the calls that wait, and every later one, with "ttrpc: closed"', async () => {
    const [ours, theirs] = duplexPair();
    const connection = new TtrpcConnection(ours);
    const waiting = rejection(connection.call('a.B', 'C', new Uint8Array()));
    theirs.end();
    expect(await waiting).toMatchObject({ status: 14, message: 'ttrpc: closed' });
    await connection.closed;
    expect(await rejection(connection.call('a.B', 'C', new Uint8Array()))).toMatchObject({
      status: 14,
      message: 'ttrpc: closed',
    });
    connection.close();
  });

  it('aborts the handlers of a client that is gone', async () => {
    const { promise: begun, resolve } = Promise.withResolvers<AbortSignal>();
    const server = new TtrpcServer().addService(Health, {
      check: (_, { signal }) => {
        resolve(signal);
        return new Promise(() => undefined);
      },
    });
    const connection = connected(server);
    const call = rejection(createClient(Health, connection).check({}));
    const signal = await begun;
    connection.close();
    expect(await call).toMatchObject({ status: 14 });
    await expect.poll(() => signal.aborted, { timeout: 5000 }).toBe(true);
  });

  it('half-close: answers to what was asked still come after the client ended its side', async () => {
    const path = join(temporaryFolder(), 's');
    const begun = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const server = new TtrpcServer().addService(Health, {
      check: async () => {
        begun.resolve();
        await released.promise;
        return { status: 1 };
      },
    });
    await server.listen(path);
    cleanups.push(() => server.close());
    const socket = connect({ path, allowHalfOpen: true });
    const decoder = new FrameDecoder();
    const frames: Frame[] = [];
    socket.on('data', (chunk: Buffer) => frames.push(...decoder.push(chunk)));
    const ended = new Promise((resolve) => socket.on('end', resolve));
    socket.end(Buffer.from(requestHex(1, 'grpc.Health', 'Check'), 'hex'));
    await begun.promise;
    released.resolve();
    await ended;
    expect(frames.map(statusOf)).toEqual([{ streamId: 1, code: 0, message: '' }]);
  });
});

describe('streaming calls', () => {
  const server = () =>
    new TtrpcServer().addService(StandardHealth, {
      check: ({ service }) => ({ status: service === 'up' ? 1 : 2 }),
      async *watch({ service }) {
        if (service === 'none') throw new TtrpcError(Status.notFound, 'no such service');
        for (let index = 0; index < 300; index++) yield { status: HealthCheckResponse_ServingStatus.SERVING };
        if (service === 'broken') throw new TtrpcError(Status.aborted, 'broken');
      },
    });

  it('a server stream gives all its messages, then ends or fails', async () => {
    const client = createClient(StandardHealth, connected(server()));
    const collect = async (service: string) => {
      let count = 0;
      try {
        for await (const { status } of client.watch({ service })) count += status;
      } catch (error) {
        return { count, status: (error as TtrpcError).status };
      }
      return { count };
    };
    expect(await collect('up')).toEqual({ count: 300 });
    expect(await collect('broken')).toEqual({ count: 300, status: 10 });
    expect(await collect('none')).toEqual({ count: 0, status: 5 });
  });

  it('a server stream has the documented flags', async () => {
    const { send, count, frames } = wire(
      new TtrpcServer().addService(StandardHealth, {
        async *watch() {
          yield { status: 1 };
        },
      }),
    );
    send(requestHex(1, 'grpc.health.v1.Health', 'Watch', { flags: 1 }));
    await count(2);
    expect(frames.map(({ type, flags, length }) => ({ type, flags, length }))).toEqual([
      { type: 3, flags: 0, length: 2 },
      { type: 3, flags: 5, length: 0 },
    ]);
  });

  it('a slow reader is not drowned: the server waits, other calls still pass later', async () => {
    const client = createClient(StandardHealth, connected(server()));
    const iterator = client.watch({ service: 'up' })[Symbol.asyncIterator]();
    await iterator.next();
    const check = client.check({ service: 'up' });
    let count = 1;
    while (!(await iterator.next()).done) count++;
    expect(count).toBe(300);
    await expect(check).resolves.toMatchObject({ status: 1 });
  });

  it('client and two-way streams work on the raw level, with half-close', async () => {
    const { ServerConnection } = await import('./server-connection.ts');
    const [ours, theirs] = duplexPair();
    const methods: Record<string, import('./service.ts').BoundMethod> = {
      Sum: {
        clientStreaming: true,
        serverStreaming: false,
        async *run(requests) {
          let sum = 0;
          for await (const message of requests as AsyncIterable<Uint8Array>) sum += message.length;
          yield Buffer.from(String(sum));
        },
      },
      Echo: {
        clientStreaming: true,
        serverStreaming: true,
        async *run(requests) {
          for await (const message of requests as AsyncIterable<Uint8Array>) yield message;
          yield Buffer.from('end');
        },
      },
    };
    const serving = new ServerConnection(theirs, (_, method) => {
      const found = methods[method];
      if (!found) throw new TtrpcError(Status.unimplemented, method);
      return found;
    });
    const connection = new TtrpcConnection(ours);
    cleanups.push(
      () => serving.destroy(),
      () => connection.close(),
    );
    const read = async (messages: AsyncIterable<Uint8Array>) => {
      const texts: string[] = [];
      for await (const message of messages) texts.push(Buffer.from(message).toString());
      return texts;
    };

    const sum = connection.openStream('a.B', 'Sum', { clientStreaming: true, serverStreaming: false });
    for (let index = 0; index < 200; index++) await sum.send(new Uint8Array(index));
    sum.closeSend();
    expect(await read(sum.messages)).toEqual(['19900']);
    await expect(sum.send(new Uint8Array())).rejects.toMatchObject({ status: 9 });

    const echo = connection.openStream('a.B', 'Echo', { clientStreaming: true, serverStreaming: true });
    await echo.send(Buffer.from('one'));
    await echo.send(Buffer.from(''));
    echo.closeSend();
    expect(await read(echo.messages)).toEqual(['one', '', 'end']);
  });
});

describe('listening', () => {
  const health = () => new TtrpcServer().addService(Health, { check: () => ({ status: 1 }) });

  it('makes a socket for its owner only, serves several clients, and removes it', async () => {
    const path = join(temporaryFolder(), 's');
    const server = health();
    await server.listen(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    for (let index = 0; index < 3; index++) {
      const connection = await TtrpcConnection.connect(path);
      cleanups.push(() => connection.close());
      await expect(createClient(Health, connection).check({})).resolves.toMatchObject({ status: 1 });
    }
    await server.close();
    expect(() => statSync(path)).toThrow('ENOENT');
    expect(await rejection(TtrpcConnection.connect(path))).toMatchObject({ status: 14 });
  });

  it('replaces a socket that a dead process left, and nothing else', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 's');
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(statSync(path).isSocket()).toBe(true);
    const server = health();
    await server.listen(path, { mode: 0o660 });
    cleanups.push(() => server.close());
    expect(statSync(path).mode & 0o777).toBe(0o660);
    expect(await rejection(health().listen(path))).toMatchObject({
      status: 6,
      message: expect.stringContaining('served by another process'),
    });
    await expect(createClient(Health, await TtrpcConnection.connect(path)).check({})).resolves.toMatchObject({
      status: 1,
    });
    const file = join(folder, 'file');
    writeFileSync(file, 'mine');
    expect(await rejection(health().listen(file))).toMatchObject({ status: 6 });
    expect(await rejection(health().listen(join(folder, 'x'.repeat(120))))).toMatchObject({ status: 3 });
  });

  it('a call on a connection that nobody answers fails at its deadline', async () => {
    const path = join(temporaryFolder(), 's');
    const sockets: Socket[] = [];
    const mute = createServer((socket) => sockets.push(socket)).listen(path);
    cleanups.push(() => mute.close());
    const connection = await TtrpcConnection.connect(path, { timeoutMs: 1000 });
    const call = connection.call('a.B', 'C', new Uint8Array(), { timeoutMs: 20 });
    expect(await rejection(call)).toMatchObject({ status: 4 });
    connection.close();
    for (const socket of sockets) socket.destroy();
  });
});
