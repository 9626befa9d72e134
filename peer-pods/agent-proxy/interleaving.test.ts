import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { type Client, createClient, Status, TtrpcConnection, TtrpcError, TtrpcServer } from '@sealpod/protocol/ttrpc';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AgentProxy } from './agent-proxy.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-relay-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

type Step =
  | { readonly kind: 'call'; readonly client: number; readonly bytes: number; readonly answerAfterMs: number }
  | { readonly kind: 'lose channel' }
  | { readonly kind: 'restart relay' }
  | { readonly kind: 'client leaves'; readonly client: number }
  | { readonly kind: 'pause'; readonly ms: number };

const clients = 3;
const limitMs = 10_000;
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('call' as const),
      client: fc.nat(clients - 1),
      bytes: fc.oneof(fc.nat(200), fc.nat(300_000)),
      answerAfterMs: fc.oneof(fc.constant(0), fc.nat(15)),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: 'lose channel' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart relay' as const }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('client leaves' as const), client: fc.nat(clients - 1) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('pause' as const), ms: fc.nat(8) }) },
);

/** A guest whose channel can be cut, and a relay that can be restarted. */
async function scene(name: string) {
  const [guestSocket, relaySocket] = [join(folder, `${name}.guest`), join(folder, `${name}.relay`)];
  const agent = new TtrpcServer().addService(AgentService, {
    // The answer tells whose it is.
    readStdout: async ({ containerId, len, execId }) => {
      if (execId !== '0') await sleep(Number(execId));
      return { data: Buffer.alloc(len, containerId) };
    },
  });
  const channels = new Set<Socket>();
  const listener = createServer((socket) => {
    channels.add(socket);
    socket.on('close', () => channels.delete(socket)).on('error', () => undefined);
    agent.serve(socket);
  });
  await new Promise<void>((resolve) => listener.listen(guestSocket, resolve));
  const start = async (resumed: boolean): Promise<AgentProxy> => {
    const proxy = new AgentProxy({ socketPath: guestSocket, settleMs: 2, reconnectMs: 5000, resumed });
    await proxy.listen(relaySocket);
    return proxy;
  };
  let relay = await start(false);
  const connections = new Map<number, TtrpcConnection>();
  return {
    loseChannel: () => {
      for (const channel of channels) channel.destroy();
    },
    restartRelay: async () => {
      const before = [...connections.values()];
      await relay.close();
      // Each client learns of it: on a connection that it believes in, its next call would be lost.
      await Promise.all(before.map(({ closed }) => closed));
      relay = await start(true);
    },
    leave: (client: number) => {
      connections.get(client)?.close();
      connections.delete(client);
    },
    agent: async (client: number): Promise<Client<typeof AgentService>> => {
      const known = connections.get(client);
      if (known) return createClient(AgentService, known);
      const connection = await TtrpcConnection.connect(relaySocket);
      connections.set(client, connection);
      void connection.closed.then(() => connections.get(client) === connection && connections.delete(client));
      return createClient(AgentService, connection);
    },
    close: async () => {
      for (const connection of connections.values()) connection.close();
      await relay.close();
      await agent.close();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}

it('whatever is lost or restarted in between, each call gets its own answer or learns that it was lost, and the next one is served', async () => {
  let count = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      const { agent, close, leave, loseChannel, restartRelay } = await scene(`s${count++}`);
      const outcomes: Promise<'answered' | 'lost'>[] = [];
      try {
        for (const [index, one] of steps.entries()) {
          if (one.kind === 'lose channel') loseChannel();
          else if (one.kind === 'restart relay') await restartRelay();
          else if (one.kind === 'client leaves') leave(one.client);
          else if (one.kind === 'pause') await sleep(one.ms);
          else {
            const request = { containerId: String(index), execId: String(one.answerAfterMs), len: one.bytes };
            outcomes.push(
              (await agent(one.client)).readStdout(request, { timeoutMs: limitMs }).then(
                ({ data }) => {
                  expect(Buffer.from(data).equals(Buffer.alloc(one.bytes, String(index)))).toBe(true);
                  return 'answered' as const;
                },
                (error: unknown) => {
                  expect(error).toBeInstanceOf(TtrpcError);
                  expect(error).toMatchObject({ status: Status.unavailable });
                  return 'lost' as const;
                },
              ),
            );
          }
        }
        const ends = await Promise.all(outcomes);
        const disturbed = steps.some(({ kind }) => kind !== 'call' && kind !== 'pause');
        if (!disturbed) expect(ends).toEqual(ends.map(() => 'answered'));
        const { data } = await (await agent(0)).readStdout({ containerId: 'x', execId: '0', len: 5 });
        expect(Buffer.from(data).toString()).toBe('xxxxx');
      } finally {
        await close();
      }
    }),
    { numRuns: 60 },
  );
}, 120_000);
