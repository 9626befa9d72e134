import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/** Name of the port that carries the agent's ttrpc bytes. */
export const agentPortName = 'sealpod.agent.0';

const readBytes = 64 * 1024;
const hostAwayDelayMs = 20;
const busyDelayMs = 1;
/** The device tells its ports' names some time after its driver was loaded. */
const portWaitMs = 5000;

/** The two calls that a port needs; a FileHandle in a guest. */
export interface PortFile {
  /** Resolves to the number of bytes read; 0 while no host is connected. */
  read(buffer: Buffer): Promise<number>;
  /** Resolves to the number of bytes taken, which may be fewer. */
  write(bytes: Uint8Array): Promise<number>;
}

/**
 * Opens the virtio-serial port of that name. The kernel lets one process open it.
 *
 * @throws SealpodError PREREQUISITE where the machine has no such port
 */
export async function openVirtioPort(
  name: string,
  ports = '/sys/class/virtio-ports',
  devices = '/dev',
): Promise<PortFile> {
  const path = join(devices, await findPort(name, ports));
  const file = await open(path, 'r+');
  return {
    read: async (buffer) => (await file.read(buffer, 0, buffer.length, null)).bytesRead,
    write: async (bytes) => (await file.write(bytes, 0, bytes.length, null)).bytesWritten,
  };
}

async function findPort(name: string, ports: string, deadline = performance.now() + portWaitMs): Promise<string> {
  const found = await readdir(ports).catch(() => []);
  for (const port of found) {
    const text = await readFile(join(ports, port, 'name'), 'utf8').catch(() => '');
    if (text.trim() === name) return port;
  }
  if (performance.now() < deadline) {
    await delay(hostAwayDelayMs);
    return await findPort(name, ports, deadline);
  }
  throw new SealpodError('PREREQUISITE', `the machine has no virtio-serial port ${name}`, {
    expected: name,
    actual: `${found.length} ports`,
    fix: 'start the machine through the adaptor',
  });
}

/**
 * Gives one stream, and its first byte, for each time that a host is connected. The port itself has no connections: while the host is away a
 * read gives nothing at once, so the stream of the previous host ends there, and the next bytes begin a new one.
 *
 * A write that is blocked in the kernel when the host goes away reaches the next host, whose client sees a malformed frame
 * and connects again.
 *
 * Runs until `signal` aborts, or rejects where the port fails.
 */
export async function servePort(
  port: PortFile,
  onConnection: (stream: Duplex, firstByte: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  let current: PortStream | undefined;
  try {
    while (signal?.aborted !== true) {
      const buffer = Buffer.allocUnsafe(readBytes);
      const length = await readPort(port, buffer);
      if (length === 0) {
        current?.hostLeft();
        current = undefined;
        await delay(hostAwayDelayMs);
        continue;
      }
      if (current === undefined || current.destroyed) {
        current = new PortStream(port);
        onConnection(current, buffer[0] ?? 0);
      }
      await current.deliver(buffer.subarray(0, length));
    }
  } finally {
    current?.destroy();
  }
}

async function readPort(port: PortFile, buffer: Buffer): Promise<number> {
  for (;;) {
    try {
      return await port.read(buffer);
    } catch (error) {
      if (!isBusy(error)) throw error;
      await delay(busyDelayMs);
    }
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EINTR');
}

/** The bytes of one host connection. */
class PortStream extends Duplex {
  readonly #port: PortFile;
  #wanted: (() => void) | undefined;

  constructor(port: PortFile) {
    super({ allowHalfOpen: false });
    this.#port = port;
    // Whoever serves the stream hears of an error by its end; without a listener it would end the process.
    this.on('error', () => undefined);
  }

  /** Hands bytes to the reader; resolves when it wants more, or has gone. */
  async deliver(bytes: Buffer): Promise<void> {
    if (this.destroyed || this.push(bytes)) return;
    await new Promise<void>((resolve) => {
      this.#wanted = resolve;
    });
  }

  hostLeft(): void {
    if (this.destroyed) return;
    this.push(null);
    this.destroy();
  }

  override _read(): void {
    this.#release();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#writeAll(chunk).then(
      () => done(),
      (error: Error) => done(error),
    );
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#release();
    done(error);
  }

  async #writeAll(chunk: Buffer): Promise<void> {
    let rest: Uint8Array = chunk;
    while (rest.length > 0 && !this.destroyed) {
      try {
        const taken = await this.#port.write(rest);
        rest = rest.subarray(taken);
        if (taken === 0) await delay(busyDelayMs);
      } catch (error) {
        if (!isBusy(error)) throw error;
        await delay(busyDelayMs);
      }
    }
  }

  #release(): void {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    wanted?.();
  }
}
