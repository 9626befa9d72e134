import { readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Instance } from '@sealpod/peer-pods/provider';

/** What the stand-in agent tells of its machine. */
export interface MachineReport {
  readonly pcrs: readonly string[];
  readonly eventLog: string;
  readonly commandLine: string;
  readonly interfaces: Readonly<Record<string, string>>;
  readonly initdataDisk: string;
  readonly uptime: string;
  readonly release: string;
  readonly node: string;
}

/** A connection to a machine's agent. It is kept: a guest takes a moment to see that its host has connected anew. */
interface Channel {
  readonly socket: Socket;
  /** The request before, which is answered first. */
  last: Promise<unknown>;
}
const channels = new Map<string, Channel>();

/**
 * Asks the stand-in agent over the agent channel and waits until it answers. The channel has no notion of a listening
 * guest: what is written before the agent reads stays in the port. Requests to one machine are asked one after the other.
 */
export function ask(instance: Instance, request: object, timeoutMs = 120_000): Promise<unknown> {
  const path = instance.agentSocketPath;
  const channel = channels.get(path) ?? { socket: connect(path), last: Promise.resolve() };
  if (!channels.has(path)) {
    channels.set(path, channel);
    channel.socket.on('error', () => undefined).once('close', () => channels.delete(path));
  }
  const answered = channel.last.then(() => exchange(instance, channel.socket, request, timeoutMs));
  channel.last = answered.catch(() => undefined);
  return answered;
}

async function exchange(instance: Instance, socket: Socket, request: object, timeoutMs: number): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let received = '';
  const onData = (chunk: Buffer): void => {
    received += String(chunk);
    if (received.includes('\n')) resolve(received);
  };
  const onClose = (): void => reject(new Error('the machine closed the channel'));
  const timer = setTimeout(() => reject(new Error('the agent did not answer in time')), timeoutMs);
  socket.on('data', onData).once('close', onClose);
  try {
    if (socket.destroyed) throw new Error('the machine closed the channel');
    socket.write(`${JSON.stringify(request)}\n`);
    const answer: { result?: unknown; failure?: string } = JSON.parse(await promise);
    if (answer.failure !== undefined) throw new Error(answer.failure);
    return answer.result;
  } catch (cause) {
    if (!socket.destroyed) throw cause;
    throw new Error(`the machine closed the channel: ${await consoleOf(instance)}`, { cause });
  } finally {
    clearTimeout(timer);
    socket.off('data', onData).off('close', onClose);
  }
}

export async function report(instance: Instance): Promise<MachineReport> {
  return (await ask(instance, { ask: 'report' })) as MachineReport;
}

export async function consoleOf(instance: Instance): Promise<string> {
  return readFile(instance.consoleLogPath ?? '', 'latin1');
}

/** Waits for a condition; fails with the console's text where it is not met in time. */
export async function until(condition: () => Promise<boolean>, timeoutMs: number, what: string): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await sleep(50);
  }
}
