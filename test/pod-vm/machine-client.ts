import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
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

/**
 * Asks the stand-in agent over the agent channel and waits until it answers. The channel has no notion of a listening
 * guest: what is written before the agent reads stays in the port.
 */
export async function ask(instance: Instance, request: object, timeoutMs = 120_000): Promise<unknown> {
  const socket = connect(instance.agentSocketPath);
  try {
    await once(socket, 'connect');
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error('the agent did not answer in time')));
    socket.write(`${JSON.stringify(request)}\n`);
    let received = '';
    for await (const chunk of socket) {
      received += String(chunk);
      if (!received.includes('\n')) continue;
      const answer: { result?: unknown; failure?: string } = JSON.parse(received);
      if (answer.failure !== undefined) throw new Error(answer.failure);
      return answer.result;
    }
    throw new Error(`the machine closed the channel: ${await consoleOf(instance)}`);
  } finally {
    socket.destroy();
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
