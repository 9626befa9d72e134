import { decode, encode } from 'cborg';
import { SealpodError } from '../errors.ts';

/** A decoded CBOR item. Maps stay maps, since COSE and EAT label members by integers. */
export type CborValue =
  | number
  | bigint
  | string
  | boolean
  | null
  | undefined
  | Uint8Array
  | CborTag
  | CborMap
  | readonly CborValue[];

/** A CBOR map. Its keys are unique. */
export type CborMap = ReadonlyMap<CborValue, CborValue>;

/** A tagged item (RFC 8949 section 3.4). */
export class CborTag {
  readonly tag: number;
  readonly value: CborValue;

  constructor(tag: number, value: CborValue) {
    this.tag = tag;
    this.value = value;
  }
}

/** Limits and naming of one decoded item. */
export interface DecodeCborOptions {
  /** Named in errors, e.g. `realm token`. */
  readonly what: string;
  /** Bytes at most; default 64 KiB. */
  readonly maxBytes?: number;
  /** Tags that may occur; any other is refused. */
  readonly tags?: readonly number[];
}

const defaultMaxBytes = 64 * 1024;

/**
 * Decodes exactly one CBOR item (RFC 8949). Encodings need not be deterministic, because what is signed is signed as bytes;
 * but a map key that occurs twice, an unknown tag and bytes after the item are refused.
 *
 * @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE
 */
export function decodeCbor(bytes: Uint8Array, options: DecodeCborOptions): CborValue {
  const { what, maxBytes = defaultMaxBytes, tags = [] } = options;
  if (bytes.length > maxBytes) {
    throw new SealpodError('REQUEST_TOO_LARGE', `${what} is too large`, {
      expected: `at most ${maxBytes} bytes`,
      actual: `${bytes.length}`,
    });
  }
  try {
    return decode(bytes, {
      useMaps: true,
      rejectDuplicateMapKeys: true,
      tags: Object.fromEntries(tags.map((tag) => [tag, (content) => new CborTag(tag, content() as CborValue)])),
    }) as CborValue;
  } catch (cause) {
    // Also a RangeError: nesting so deep that the decoder runs out of stack.
    throw new SealpodError('EV_FORMAT', `${what} is not well-formed CBOR`, {
      expected: 'one item of CBOR',
      actual: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}

/** Encodes an item deterministically (RFC 8949 section 4.2.1). Tags are not encoded here. */
export function encodeCbor(value: CborValue): Buffer {
  return Buffer.from(encode(value));
}

function refuse(what: string, expected: string, actual: CborValue): never {
  throw new SealpodError('EV_FORMAT', `${what} has the wrong type`, { expected, actual: describeCbor(actual) });
}

/** What kind of item it is, for explanations. */
export function describeCbor(value: CborValue): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (value instanceof CborTag) return `tag ${value.tag}`;
  if (value instanceof Map) return 'a map';
  if (Array.isArray(value)) return 'an array';
  return value === undefined ? 'nothing' : `${typeof value} ${String(value).slice(0, 80)}`;
}

/** @throws SealpodError EV_FORMAT */
export function asCborMap(value: CborValue, what: string): CborMap {
  return value instanceof Map ? value : refuse(what, 'a map', value);
}

/** @throws SealpodError EV_FORMAT */
export function asCborArray(value: CborValue, what: string): readonly CborValue[] {
  return Array.isArray(value) ? (value as readonly CborValue[]) : refuse(what, 'an array', value);
}

/**
 * @param lengths the lengths that are allowed; any where there are none
 * @throws SealpodError EV_FORMAT
 */
export function asCborBytes(value: CborValue, what: string, ...lengths: number[]): Buffer {
  const allowed = value instanceof Uint8Array && (lengths.length === 0 || lengths.includes(value.length));
  if (!allowed) refuse(what, lengths.length === 0 ? 'a byte string' : `${lengths.join(' or ')} bytes`, value);
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

/** @throws SealpodError EV_FORMAT */
export function asCborText(value: CborValue, what: string): string {
  return typeof value === 'string' ? value : refuse(what, 'text', value);
}

/** A whole number that a JavaScript number holds exactly. @throws SealpodError EV_FORMAT */
export function asCborInteger(value: CborValue, what: string): number {
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : refuse(what, 'an integer', value);
}
