import { once } from 'node:events';
import { closeSync, constants, mkdirSync, openSync, statSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/**
 * A path as containerd gives it for standard streams: a plain path or `fifo://` is a FIFO, `file://` a file to append to.
 *
 * @throws SealpodError UNSUPPORTED for `binary://` and other schemes.
 */
export function streamPath(text: string): { readonly path: string; readonly file: boolean } {
  const match = /^([a-z]+):\/\/([^?]*)/.exec(text);
  if (match === null) return { path: text, file: false };
  const [, scheme, path = ''] = match;
  if (scheme === 'fifo') return { path, file: false };
  if (scheme === 'file') return { path, file: true };
  throw new SealpodError('UNSUPPORTED', `standard stream ${text}: scheme ${scheme} is not supported`);
}

/** Longest wait for a reader to read what is left and close its end. */
const drainedMs = 2000;

/** Where the output of a process goes. `write` resolves when the reader has room for more. */
export interface OutputSink {
  write(data: Uint8Array): Promise<void>;
  /** Flushes and closes: the reader sees the end of the stream once this resolves. */
  close(): Promise<void>;
  /** Drops what was not read yet, so that a reader who went away holds nothing up. */
  destroy(): void;
}

/** Discards everything: the process has to be read even where nobody listens, or it would block. */
export function nullSink(): OutputSink {
  return { write: async () => undefined, close: async () => undefined, destroy: () => undefined };
}

/**
 * Opens a FIFO for output without ever blocking the event loop or a thread of the pool.
 *
 * It is opened for reading too (`O_RDWR`): opening does not wait for a reader, and a restart of containerd, whose end is
 * closed and opened again, is no broken pipe. The reader sees the end when this end is closed.
 *
 * @throws SealpodError INTERNAL when the path cannot be opened.
 */
export function openOutput(text: string): OutputSink {
  if (text === '') return nullSink();
  const { path, file } = streamPath(text);
  let descriptor: number;
  try {
    if (file) mkdirSync(dirname(path), { recursive: true });
    descriptor = file
      ? openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT, 0o640)
      : openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    throw new SealpodError('INTERNAL', `cannot open output stream ${path}: ${String(cause)}`, { cause });
  }
  if (statSync(path).isFIFO()) return fifoSink(descriptor, path);
  return fileSink(descriptor);
}

function fifoSink(descriptor: number, path: string): OutputSink {
  const socket = new Socket({ fd: descriptor, readable: false, writable: true });
  const failed = new Promise<never>((_, reject) => {
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('output stream is closed')));
  });
  failed.catch(() => undefined);
  return {
    async write(data) {
      const written = new Promise<void>((resolve, reject) => {
        socket.write(data, (error) => (error ? reject(error) : resolve()));
      });
      await Promise.race([written, failed]);
    },
    async close() {
      if (socket.destroyed) return;
      const closed = once(socket, 'close');
      // A FIFO has no half-close: all was handed to the kernel when write's callbacks came, so closing loses nothing.
      socket.destroy();
      await closed;
      await readerGone(path);
    },
    destroy: () => socket.destroy(),
  };
}

/**
 * Waits until the reader has read to the end and let go: containerd 1.6 closes its end as soon as it learns of an exit,
 * and what is still in the FIFO then is lost. Opening for writing fails with ENXIO where nobody reads. A reader that
 * keeps its end open is not waited for longer than `drainedMs`.
 */
async function readerGone(path: string): Promise<void> {
  const deadline = Date.now() + drainedMs;
  while (Date.now() < deadline) {
    try {
      closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENXIO' || code === 'ENOENT') return;
      throw error;
    }
    await delay(2);
  }
}

function fileSink(descriptor: number): OutputSink {
  let open = true;
  const close = (): void => {
    if (open) closeSync(descriptor);
    open = false;
  };
  return {
    async write(data) {
      for (let offset = 0; offset < data.length; ) offset += writeSync(descriptor, data, offset);
    },
    close: async () => close(),
    destroy: close,
  };
}

/** The standard input of a process: a FIFO that others write to. */
export interface InputSource {
  /** The data, in the order written, ended when every writer has closed and `closeWriter` was called. */
  readonly data: AsyncIterable<Uint8Array>;
  /** CloseIO: no more writers are expected after those that have the FIFO open now. */
  closeWriter(): void;
  destroy(): void;
}

/**
 * Opens a FIFO for input. A writer of our own keeps the stream open until `closeWriter`, so that a client that attaches
 * later, or containerd's restart, does not read as the end of the input.
 */
export function openInput(text: string): InputSource {
  const { path } = streamPath(text);
  let reader: number;
  let writer: number | undefined;
  try {
    reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new SealpodError('INTERNAL', `cannot open input stream ${path}: ${String(cause)}`, { cause });
  }
  const socket = new Socket({ fd: reader, readable: true, writable: false });
  const closeWriter = (): void => {
    if (writer !== undefined) closeSync(writer);
    writer = undefined;
  };
  return {
    data: socket,
    closeWriter,
    destroy() {
      closeWriter();
      socket.destroy();
    },
  };
}
