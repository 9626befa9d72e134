import { lstat, unlink } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { TtrpcConnection } from './connection.ts';
import { Status, TtrpcError } from './status.ts';

/** What listens on a unix socket. */
export interface SocketListener {
  /** Takes no more connections and removes the socket; those that exist go on, and it resolves with their end. */
  close(): Promise<void>;
}

/**
 * Listens on a unix socket, created with `mode`. A socket that nobody serves any more is removed first.
 * Throws `alreadyExists` where somebody serves it, or the path is no socket; else the system's error.
 */
export async function listenOnSocket(
  socketPath: string,
  mode: number,
  onConnection: (socket: Socket) => void,
): Promise<SocketListener> {
  if (Buffer.byteLength(socketPath) > 107) {
    throw new TtrpcError(Status.invalidArgument, `a unix socket path has at most 107 bytes: ${socketPath}`);
  }
  await removeStaleSocket(socketPath);
  // Half-open: answers still go out after a client ended its side.
  const listener = createServer({ allowHalfOpen: true }, onConnection);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  listener.once('listening', resolve);
  listener.once('error', reject);
  // The socket is bound within this call, so it never has wider permissions than it should.
  const umask = process.umask(0o777 & ~mode);
  try {
    listener.listen(socketPath);
  } finally {
    process.umask(umask);
  }
  await promise;
  return { close: () => new Promise((closed) => listener.close(() => closed())) };
}

async function removeStaleSocket(socketPath: string): Promise<void> {
  const stat = await lstat(socketPath).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!stat) return;
  if (!stat.isSocket()) throw new TtrpcError(Status.alreadyExists, `${socketPath} exists and is not a socket`);
  const connection = await TtrpcConnection.connect(socketPath, { timeoutMs: 1000 }).catch((error: TtrpcError) => {
    const { code } = error.cause as NodeJS.ErrnoException;
    if (code === 'ECONNREFUSED' || code === 'ENOENT') return undefined;
    throw error;
  });
  if (connection) {
    connection.close();
    throw new TtrpcError(Status.alreadyExists, `${socketPath} is served by another process`);
  }
  await unlink(socketPath).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}
