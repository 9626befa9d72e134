import { SealpodError } from '@sealpod/protocol/errors';

/** The channels of Kubernetes' remote command protocol, version 4, over WebSocket. */
const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const;
const protocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io'];
const connectMs = 10_000;

export interface RemoteStreams {
  readonly stdin?: AsyncIterable<Uint8Array>;
  onStdout(data: Uint8Array): void;
  onStderr?(data: Uint8Array): void;
}

/** A running `exec` or `attach`. */
export interface RemoteCommand {
  /** Exit code of the command. @throws SealpodError when the runtime failed to run it or the connection broke. */
  readonly exitCode: Promise<number>;
  resize(columns: number, rows: number): void;
  close(): void;
}

/** The exit code in the status that ends a command (Kubernetes `metav1.Status`). */
export function exitCodeOf(status: string): number {
  const parsed = JSON.parse(status) as {
    status?: string;
    message?: string;
    details?: { causes?: { reason?: string; message?: string }[] };
  };
  if (parsed.status === 'Success') return 0;
  const cause = parsed.details?.causes?.find(({ reason }) => reason === 'ExitCode');
  if (cause?.message !== undefined && /^\d+$/.test(cause.message)) return Number(cause.message);
  throw new SealpodError('INTERNAL', `the command could not be run: ${parsed.message ?? status}`);
}

function frame(to: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(data.length + 1);
  bytes[0] = to;
  bytes.set(data, 1);
  return bytes;
}

/**
 * Opens the streaming URL that the CRI's Exec or Attach answered.
 *
 * The end of standard input can be told to runtimes that speak version 5 of the protocol (containerd 2.x); older ones
 * (1.6, 1.7) have no such message over WebSocket, and the command reads on until it ends.
 *
 * @throws SealpodError UNSUPPORTED when the runtime refuses the connection.
 */
export async function openRemoteCommand(url: string, streams: RemoteStreams): Promise<RemoteCommand> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), protocols);
  socket.binaryType = 'arraybuffer';
  let settle: (code: number) => void = () => undefined;
  let fail: (error: Error) => void = () => undefined;
  const exitCode = new Promise<number>((resolve, reject) => {
    settle = resolve;
    fail = reject;
  });
  exitCode.catch(() => undefined);
  socket.addEventListener('message', ({ data }) => {
    const bytes = new Uint8Array(data as ArrayBuffer);
    const payload = bytes.subarray(1);
    if (bytes[0] === channel.stdout && payload.length > 0) streams.onStdout(payload);
    if (bytes[0] === channel.stderr && payload.length > 0) streams.onStderr?.(payload);
    if (bytes[0] === channel.error && payload.length > 0) {
      try {
        settle(exitCodeOf(new TextDecoder().decode(payload)));
      } catch (thrown) {
        fail(thrown instanceof Error ? thrown : new Error(String(thrown)));
      }
    }
  });
  socket.addEventListener('close', ({ reason }) => {
    fail(new SealpodError('INTERNAL', `the stream ended without an exit code ${reason}`.trim()));
  });
  await new Promise<void>((resolve, reject) => {
    const refuse = (message: string) => (): void => {
      clearTimeout(timer);
      reject(new SealpodError('UNSUPPORTED', `the runtime ${message} the stream ${new URL(url).origin}`));
    };
    const timer = setTimeout(refuse('did not open'), connectMs);
    socket.addEventListener('open', () => {
      clearTimeout(timer);
      resolve();
    });
    socket.addEventListener('error', refuse('refused'));
  });
  const finished = exitCode.then(
    () => undefined,
    () => undefined,
  );
  void finished.then(() => socket.close());
  void sendInput(socket, streams.stdin, finished);
  return {
    exitCode,
    resize: (Width, Height) => socket.send(frame(channel.resize, Buffer.from(JSON.stringify({ Width, Height })))),
    close: () => socket.close(),
  };
}

async function sendInput(
  socket: WebSocket,
  stdin: AsyncIterable<Uint8Array> | undefined,
  finished: Promise<void>,
): Promise<void> {
  if (stdin === undefined) return;
  const iterator = stdin[Symbol.asyncIterator]();
  for (;;) {
    const next = await Promise.race([iterator.next(), finished]);
    if (next === undefined || socket.readyState !== WebSocket.OPEN) return;
    if (next.done === true) break;
    socket.send(frame(channel.stdin, next.value));
  }
  // Version 5: channel 255 names the channel that ends.
  if (socket.protocol.startsWith('v5.')) socket.send(frame(255, Uint8Array.of(channel.stdin)));
}
