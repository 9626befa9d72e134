import { closeSync, constants, openSync, writeSync } from 'node:fs';

/** Where the shim writes: containerd copies each line into its own log. */
export interface Logger {
  info(message: string, fields?: Record<string, unknown>): void;
  debug(message: string, fields?: Record<string, unknown>): void;
  close(): void;
}

function text(value: unknown): string {
  const plain = value instanceof Error ? value.message : String(value);
  return /^[\w./:-]+$/.test(plain) ? plain : JSON.stringify(plain);
}

/** One line in logfmt, as containerd's own log has it. */
export function line(level: string, message: string, fields: Record<string, unknown>): string {
  const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${text(value)}`);
  return `time="${new Date().toISOString()}" level=${level} msg=${JSON.stringify(message)}${rest.join('')}\n`;
}

/**
 * Logs to the FIFO `log` of the bundle. It is opened for reading too and never blocks: while containerd is restarted,
 * nobody reads it; lines that find it full are dropped rather than stopping the pod.
 */
export function openLog(path: string, fields: Record<string, unknown>, debug: boolean): Logger {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch {
    // `ctr` before 1.5 and CRI-O make no log FIFO: without one there is nobody to tell.
  }
  const write = (level: string, message: string, extra: Record<string, unknown>): void => {
    if (descriptor === undefined) return;
    try {
      writeSync(descriptor, line(level, message, { ...fields, ...extra }));
    } catch {
      // EAGAIN: the FIFO is full because nobody reads.
    }
  };
  return {
    info: (message, extra = {}) => write('info', message, extra),
    debug: (message, extra = {}) => (debug ? write('debug', message, extra) : undefined),
    close() {
      if (descriptor !== undefined) closeSync(descriptor);
      descriptor = undefined;
    },
  };
}
