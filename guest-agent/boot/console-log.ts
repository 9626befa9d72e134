import { writeSync } from 'node:fs';
import { uptime } from 'node:os';
import { SealpodError } from '@sealpod/protocol/errors';

/** Plain values that may be shown to the host: the console is not confidential. Never put a secret or a token here. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** Writes one JSON line to the console. */
export type Log = (level: 'info' | 'error', message: string, fields?: LogFields) => void;

/**
 * Logs to a file descriptor; standard output of the first process is the machine's console. `uptime`, milliseconds since
 * the kernel began (in a clone, since it was woken), is what the host can relate to its own clock: that of the guest was set
 * by the host, to the second.
 *
 * @param wokenAt milliseconds of the kernel's uptime that are not this machine's own
 */
export function createConsoleLog(write: (line: string) => void = (line) => writeSync(1, line), wokenAt = 0): Log {
  return (level, message, fields = {}) => {
    const time = new Date().toISOString();
    write(`${JSON.stringify({ time, uptime: Math.round(uptime() * 1000 - wokenAt), level, message, ...fields })}\n`);
  };
}

/** What may be said of a failure on the console: code, message and correlation id, never a payload. */
export function failureFields(error: unknown): LogFields {
  if (error instanceof SealpodError) {
    return { code: error.code, error: error.message, correlation: error.detail.correlationId };
  }
  return { code: 'INTERNAL', error: error instanceof Error ? error.message : String(error) };
}
