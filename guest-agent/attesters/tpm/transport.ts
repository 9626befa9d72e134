import { type FileHandle, open } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { SealpodError } from '@sealpod/protocol/errors';

/** One request–response channel to a TPM 2.0. Commands are sent one at a time, in the order of the calls. */
export interface TpmTransport {
  /** @returns the whole response, header included */
  transmit(command: Uint8Array): Promise<Buffer>;
  close(): Promise<void>;
}

const headerBytes = 10;
/** Largest response: TPM2_MAX_RESPONSE_SIZE of every known implementation is 4096. */
const maxResponseBytes = 8192;
const responseTimeoutMs = 30_000;

/** Runs jobs one after the other; a failed job does not stop the next. */
function sequential(): <Result>(job: () => Promise<Result>) => Promise<Result> {
  let last: Promise<unknown> = Promise.resolve();
  return (job) => {
    const next = last.then(job, job);
    last = next.catch(() => undefined);
    return next;
  };
}

/**
 * Opens the kernel's TPM device. `/dev/tpmrm0` is the one with the resource manager: keys and sessions of this handle are
 * its own, and are flushed when it is closed.
 *
 * @throws SealpodError TEE_MISSING
 */
export async function openTpmDevice(path = '/dev/tpmrm0'): Promise<TpmTransport> {
  let device: FileHandle;
  try {
    device = await open(path, 'r+');
  } catch (cause) {
    throw new SealpodError('TEE_MISSING', `the TPM device ${path} cannot be opened`, { cause, actual: String(cause) });
  }
  const inOrder = sequential();
  return {
    transmit: (command) =>
      inOrder(async () => {
        // The driver takes a command in one write and gives its response in one read.
        await device.write(command, 0, command.length, null);
        const response = Buffer.alloc(maxResponseBytes);
        const { bytesRead } = await device.read(response, 0, response.length, null);
        return response.subarray(0, bytesRead);
      }),
    close: () => device.close(),
  };
}

/**
 * Connects to a software TPM (`swtpm socket --server type=unixio,path=…`).
 *
 * @throws SealpodError TEE_MISSING
 */
export async function connectTpmSocket(path: string): Promise<TpmTransport> {
  const socket = connect(path);
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', (cause) => reject(new SealpodError('TEE_MISSING', `no TPM answers at ${path}`, { cause })));
  });
  const inOrder = sequential();
  return {
    transmit: (command) => inOrder(() => exchange(socket, command)),
    close: async () => {
      socket.destroy();
    },
  };
}

function exchange(socket: Socket, command: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let received = Buffer.alloc(0);
    const finish = (act: () => void): void => {
      clearTimeout(timer);
      socket.off('data', onData).off('error', onGone).off('close', onGone);
      act();
    };
    const fail = (message: string, cause?: unknown): void =>
      finish(() => reject(new SealpodError('TEE_MISSING', message, cause === undefined ? {} : { cause })));
    const onGone = (cause?: unknown): void => fail('the connection to the TPM was lost', cause);
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      if (received.length < headerBytes) return;
      const length = received.readUInt32BE(2);
      if (length > maxResponseBytes || received.length > length) fail('the TPM sent a malformed response');
      else if (received.length === length) finish(() => resolve(received));
    };
    const timer = setTimeout(() => fail(`the TPM did not answer within ${responseTimeoutMs} ms`), responseTimeoutMs);
    socket.on('data', onData).once('error', onGone).once('close', onGone);
    if (socket.destroyed) onGone();
    else socket.write(command);
  });
}
