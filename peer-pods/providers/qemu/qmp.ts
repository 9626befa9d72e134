import { connect } from 'node:net';

const answerTimeoutMs = 2000;
const maxGreetingBytes = 64 << 10;

/**
 * Whether QEMU's control socket greets (QEMU Machine Protocol specification, "Server Greeting"). It does so only after
 * all devices are realised, so a machine that answers was set up completely.
 */
export async function waitForQmp(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    let received = '';
    const finish = (answered: boolean): void => {
      socket.destroy();
      resolve(answered);
    };
    socket.setTimeout(answerTimeoutMs, () => finish(false));
    socket.on('error', () => finish(false));
    socket.on('close', () => finish(false));
    socket.on('data', (chunk: Buffer) => {
      received += chunk.toString('utf8');
      if (received.length > maxGreetingBytes) finish(false);
      else if (received.includes('\n')) finish(received.startsWith('{"QMP"'));
    });
  });
}
