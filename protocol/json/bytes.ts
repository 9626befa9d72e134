import { SealpodError } from '../errors.ts';
import type { ReasonCode } from '../reason-codes.ts';

/** Limits and naming of one decoded byte string. */
interface DecodeOptions {
  /** Name of the member, for the message. */
  readonly what?: string;
  /** Largest number of decoded bytes; 1 MiB by default. */
  readonly maxBytes?: number;
  readonly code?: ReasonCode;
}

/**
 * Decodes standard base64 with padding (RFC 4648 §4), refusing everything `Buffer` would forgive: other alphabets,
 * missing padding, white space, non-zero trailing bits. So each byte string has exactly one encoding.
 *
 * @throws SealpodError REQUEST_FORMAT (or `options.code`), REQUEST_TOO_LARGE
 */
export function decodeBase64(text: string, options: DecodeOptions = {}): Buffer {
  return decode(text, 'base64', options, Math.ceil(((options.maxBytes ?? defaultMaxBytes) + 2) / 3) * 4);
}

/** Decodes URL-safe base64 without padding (RFC 4648 §5), as strictly as {@link decodeBase64}. */
export function decodeBase64Url(text: string, options: DecodeOptions = {}): Buffer {
  return decode(text, 'base64url', options, Math.ceil(((options.maxBytes ?? defaultMaxBytes) * 4) / 3));
}

/** Decodes hexadecimal of either case with an even number of digits. */
export function decodeHex(text: string, options: DecodeOptions = {}): Buffer {
  return decode(text.toLowerCase(), 'hex', options, (options.maxBytes ?? defaultMaxBytes) * 2);
}

const defaultMaxBytes = 1024 * 1024;

function decode(
  text: string,
  encoding: 'base64' | 'base64url' | 'hex',
  { what = 'value', maxBytes = defaultMaxBytes, code = 'REQUEST_FORMAT' }: DecodeOptions,
  maxCharacters: number,
): Buffer {
  if (text.length > maxCharacters) {
    throw new SealpodError('REQUEST_TOO_LARGE', `${what} is too large`, { expected: `at most ${maxBytes} bytes` });
  }
  const bytes = Buffer.from(text, encoding);
  if (bytes.toString(encoding) !== text) throw new SealpodError(code, `${what} is not valid ${encoding}`);
  if (bytes.length > maxBytes) {
    throw new SealpodError('REQUEST_TOO_LARGE', `${what} is too large`, { expected: `at most ${maxBytes} bytes` });
  }
  return bytes;
}
