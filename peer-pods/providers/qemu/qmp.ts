import { connect } from 'node:net';

const answerTimeoutMs = 5000;
const maxAnswerBytes = 64 << 10;
const requests = [{ execute: 'qmp_capabilities' }, { execute: 'query-status' }];

/**
 * Asks QEMU over its control socket (QEMU Machine Protocol) whether the machine runs, or is in another `status`. The greeting alone would not tell:
 * it comes before firmware, disks and cards are set up. Commands are answered by the main loop, which starts after that.
 */
export async function isMachineRunning(socketPath: string, status = 'running'): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    let received = '';
    const finish = (running: boolean): void => {
      socket.destroy();
      resolve(running);
    };
    socket.setTimeout(answerTimeoutMs, () => finish(false));
    socket.on('error', () => finish(false));
    socket.on('close', () => finish(false));
    socket.on('connect', () => {
      for (const request of requests) socket.write(`${JSON.stringify(request)}\n`);
    });
    socket.on('data', (chunk: Buffer) => {
      received += chunk.toString('utf8');
      if (received.length > maxAnswerBytes) return finish(false);
      const lines = received.split('\n');
      received = lines.pop() ?? '';
      if (lines.some((line) => reports(line, status))) finish(true);
    });
  });
}

function reports(line: string, status: string): boolean {
  const message: unknown = parse(line);
  if (typeof message !== 'object' || message === null || !('return' in message)) return false;
  const answer = message.return;
  return typeof answer === 'object' && answer !== null && 'status' in answer && answer.status === status;
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    // Not QMP: the same as no answer.
    return undefined;
  }
}
