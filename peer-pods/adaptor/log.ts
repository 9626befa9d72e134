import { pino } from 'pino';

/** Structured lines, as the parts of the adaptor write them. */
export interface Log {
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

/** JSON lines on standard error, written at once so that none is lost when the process ends. */
export function createLog(level: string, part = 'adaptor'): Log {
  const options = { level, base: { part }, timestamp: pino.stdTimeFunctions.isoTime };
  return pino(
    { ...options, formatters: { level: (label) => ({ level: label }) } },
    pino.destination({ fd: 2, sync: true }),
  );
}
