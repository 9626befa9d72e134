import { SealpodError } from '../errors.ts';
import type { ReasonCode } from '../reason-codes.ts';
import type { JsonValue } from './parse.ts';

/** Limits of an array of bytes; any length up to 1 MiB by default. */
export interface OctetLimits {
  readonly least?: number;
  readonly most?: number;
  readonly code?: ReasonCode;
}

/**
 * An array of numbers 0 to 255, which is how serde writes bytes.
 *
 * @throws SealpodError REQUEST_FORMAT (or `limits.code`) naming the member
 */
export function asJsonOctets(value: JsonValue | undefined, what: string, limits: OctetLimits = {}): Buffer {
  const { least = 0, most = 1024 * 1024, code = 'REQUEST_FORMAT' } = limits;
  if (!Array.isArray(value) || value.length < least || value.length > most) {
    throw new SealpodError(code, `${what} is not an array of bytes`, {
      expected: least === most ? `${most} bytes` : `${least} to ${most} bytes`,
      actual: Array.isArray(value) ? `${value.length} items` : typeof value,
    });
  }
  if (!value.every((byte: JsonValue) => typeof byte === 'number' && Number.isInteger(byte) && byte >= 0 && byte <= 255))
    throw new SealpodError(code, `${what} has an item that is no byte`);
  return Buffer.from(value as readonly number[]);
}
