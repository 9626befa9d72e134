import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { type Client, createClient, TtrpcConnection } from '@sealpod/protocol/ttrpc';
import { type BenchCase, type Figure, figure, inTurn, ratio } from '../measure.ts';
import { processorSeconds } from '../processes.ts';

const program = fileURLToPath(new URL('../load/agent-relay.ts', import.meta.url));
const transferBytes = 100_000_000;
/** What shims ask for at a time. */
const pieceBytes = 64 * 1024;
const pieces = Math.ceil(transferBytes / pieceBytes);
const mebibytes = (pieces * pieceBytes) / 2 ** 20;

export const agentRelay: BenchCase = {
  name: 'agent-relay',
  definition:
    '100 MB out of a guest (exec, logs) and into it (cp) in calls of 64 KiB, through the agent relay of the adaptor against the same calls made on the socket of the agent itself; agent, relay and client are processes of one machine, no VM between them',
  obstacle: () => undefined,
  run: async ({ runs, scratch }) => {
    const folder = await mkdtemp(join(scratch, 'relay-'));
    const path = (name: string): string => join(folder, name);
    const processes: ChildProcess[] = [];
    const connections: TtrpcConnection[] = [];
    const serve = async (...args: readonly string[]): Promise<number> => {
      const child = await serving(...args);
      processes.push(child);
      return child.pid ?? Number.NaN;
    };
    const connected = async (socket: string): Promise<Client<typeof AgentService>> => {
      const connection = await TtrpcConnection.connect(socket);
      connections.push(connection);
      return createClient(AgentService, connection);
    };
    try {
      await serve('guest', path('guest'));
      await serve('guest-tls', path('guest-tls'));
      const relays = {
        plain: await serve('relay', path('guest'), path('relay')),
        tls: await serve('relay-tls', path('guest-tls'), path('relay-tls')),
      };
      const direct = await connected(path('guest'));
      const relayed = await connected(path('relay'));
      const protectedOne = await connected(path('relay-tls'));
      const begun = { plain: processorSeconds(relays.plain), tls: processorSeconds(relays.tls) };
      const samples = await inTurn(runs, {
        readDirect: () => throughput(() => read(direct)),
        readRelayed: () => throughput(() => read(relayed)),
        readTls: () => throughput(() => read(protectedOne)),
        writeDirect: () => throughput(() => write(direct)),
        writeRelayed: () => throughput(() => write(relayed)),
        writeTls: () => throughput(() => write(protectedOne)),
      });
      const transfers = 2 * (runs + 1);
      const spent = (which: 'plain' | 'tls'): number =>
        ((processorSeconds(relays[which]) - begun[which]) * 1000) / transfers;
      const rate = (name: string, values: readonly number[]): Figure => figure(name, 'MiB/s', values);
      const [readDirect, writeDirect] = [
        rate('read, on the socket of the agent', samples.readDirect),
        rate('write, on the socket of the agent', samples.writeDirect),
      ];
      const [readRelayed, writeRelayed] = [
        rate('read, through the relay', samples.readRelayed),
        rate('write, through the relay', samples.writeRelayed),
      ];
      const [readTls, writeTls] = [
        rate('read, through the relay with TLS to the agent', samples.readTls),
        rate('write, through the relay with TLS to the agent', samples.writeTls),
      ];
      return {
        figures: [
          ...[readDirect, readRelayed, readTls, writeDirect, writeRelayed, writeTls],
          figure('processor time of the relay for 100 MB', 'ms', [spent('plain')]),
          figure('processor time of the relay for 100 MB with TLS', 'ms', [spent('tls')]),
        ],
        ratios: [
          ...[ratio(readRelayed, readDirect), ratio(readTls, readDirect)],
          ...[ratio(writeRelayed, writeDirect), ratio(writeTls, writeDirect)],
        ],
        notes: ['one call at a time, as a shim reads one stream: the figures are round trips more than bytes'],
      };
    } finally {
      for (const connection of connections) connection.close();
      for (const child of processes) {
        child.kill();
        await once(child, 'exit');
      }
    }
  },
};

async function serving(...args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [said] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
  if (String(said).trim() !== 'serving') throw new Error(`${args[0]} of the benchmark did not start`);
  return child;
}

/** MiB each second. */
async function throughput(transfer: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await transfer();
  return mebibytes / ((performance.now() - began) / 1000);
}

async function read(agent: Client<typeof AgentService>): Promise<void> {
  for (let piece = 0; piece < pieces; piece++) {
    const { data } = await agent.readStdout({ containerId: 'c', execId: '', len: pieceBytes });
    if (data.length !== pieceBytes) throw new Error(`the agent gave ${data.length} bytes`);
  }
}

async function write(agent: Client<typeof AgentService>): Promise<void> {
  const data = Buffer.alloc(pieceBytes, 9);
  for (let piece = 0; piece < pieces; piece++) {
    const { len } = await agent.writeStdin({ containerId: 'c', execId: '', data });
    if (len !== pieceBytes) throw new Error(`the agent took ${len} bytes`);
  }
}
