import { SealpodError } from '../errors.ts';
import type { ReasonCode } from '../reason-codes.ts';

/** Any JSON value. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
/** A JSON object. */
export interface JsonObject {
  readonly [name: string]: JsonValue;
}

/** Limits of one document. Sizes are in bytes of UTF-8 for bytes and in UTF-16 units for text. */
export interface ParseJsonLimits {
  readonly maxSize?: number;
  /** How deep arrays and objects may nest. */
  readonly maxDepth?: number;
  /** What the document is, for the message, e.g. `attestation request`. */
  readonly what?: string;
  /** Reason code of a malformed document; `REQUEST_FORMAT` by default. */
  readonly code?: ReasonCode;
}

/**
 * Parses JSON as RFC 8259 has it, and refuses what two parsers could read differently: duplicate member names
 * (RFC 8259 §4 leaves their meaning open), a member named `__proto__`, bytes that are not UTF-8, a byte order mark.
 *
 * Integers beyond 2^53 lose precision, as everywhere in ECMAScript.
 *
 * @throws SealpodError `limits.code` where malformed, `REQUEST_TOO_LARGE` where larger than `maxSize` (default 2 MiB)
 */
export function parseJson(input: string | Uint8Array, limits: ParseJsonLimits = {}): JsonValue {
  const { maxSize = 2 * 1024 * 1024, maxDepth = 64, what = 'JSON document', code = 'REQUEST_FORMAT' } = limits;
  if (input.length > maxSize) {
    throw new SealpodError('REQUEST_TOO_LARGE', `${what} is too large`, {
      expected: `at most ${maxSize}`,
      actual: `${input.length}`,
    });
  }
  try {
    const text =
      typeof input === 'string' ? input : new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(input);
    checkStructure(text, maxDepth);
    return JSON.parse(text) as JsonValue;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    // V8 quotes the document in its message; a document may hold a secret.
    const shown = cause instanceof SyntaxError ? 'not valid JSON' : reason;
    throw new SealpodError(code, `malformed ${what}: ${shown}`, cause instanceof SyntaxError ? {} : { cause });
  }
}

/** Walks the tokens that matter for depth and member names; all other syntax is left to JSON.parse. */
function checkStructure(text: string, maxDepth: number): void {
  /** Names seen in each open object; `undefined` for an open array. */
  const open: (Set<string> | undefined)[] = [];
  let expectName = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x22: {
        const end = endOfString(text, at);
        const names = open.at(-1);
        if (expectName && names !== undefined) checkName(text.slice(at, end + 1), names);
        expectName = false;
        at = end;
        break;
      }
      case 0x7b:
      case 0x5b:
        if (open.length >= maxDepth) throw new RangeError(`nested deeper than ${maxDepth}`);
        expectName = text[at] === '{';
        open.push(expectName ? new Set() : undefined);
        break;
      case 0x7d:
      case 0x5d:
        open.pop();
        expectName = false;
        break;
      case 0x2c:
        expectName = open.at(-1) !== undefined;
        break;
    }
  }
}

function checkName(quoted: string, names: Set<string>): void {
  const name = quoted.includes('\\') ? (JSON.parse(quoted) as string) : quoted.slice(1, -1);
  if (name === '__proto__') throw new RangeError('member name __proto__');
  if (names.has(name)) throw new RangeError('duplicate member name');
  names.add(name);
}

/** The quote that ends a string: the first that an even number of backslashes stands before. */
function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at >= 0; at = text.indexOf('"', at + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(at - 1 - backslashes) === 0x5c) backslashes += 1;
    if (backslashes % 2 === 0) return at;
  }
  throw new SyntaxError('unterminated string');
}
