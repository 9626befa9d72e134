import canonicalize from 'canonicalize';
import { SealpodError } from '../errors.ts';
import type { JsonValue } from './parse.ts';

/**
 * The JSON Canonicalization Scheme (RFC 8785): members sorted by UTF-16 units, no white space, ECMAScript numbers.
 *
 * @throws SealpodError REQUEST_FORMAT for what has no canonical form: NaN, infinities, lone surrogates
 */
export function canonicalJson(value: JsonValue): string {
  try {
    const sorted = sortedCopy(value);
    // What is sorted already is canonical as JSON.stringify writes it, and that is many times as fast as any other writer.
    const text = sorted === undefined ? canonicalize(value) : JSON.stringify(sorted);
    if (text !== undefined) return text;
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', 'a value has no canonical JSON form', { cause });
  }
  throw new SealpodError('REQUEST_FORMAT', 'a value has no canonical JSON form');
}

/** Names that objects put before all others, whatever the order they are set in. */
const arrayIndex = /^(?:0|[1-9]\d*)$/;

/** The value with sorted members; undefined where JSON.stringify would not write it canonically or at all. */
function sortedCopy(value: unknown): unknown {
  switch (typeof value) {
    case 'boolean':
      return value;
    case 'number':
      return Number.isFinite(value) ? value : undefined;
    case 'string':
      return value.isWellFormed() ? value : undefined;
    case 'object':
      if (value === null) return null;
      return Array.isArray(value) ? copyOfArray(value) : copyOfObject(value);
    default:
      return undefined;
  }
}

function copyOfArray(array: readonly unknown[]): readonly unknown[] | undefined {
  // Evidence has its bytes as arrays of numbers, which need no copy.
  if (array.every(Number.isFinite)) return array;
  const copy: unknown[] = [];
  for (const item of array) {
    const sorted = sortedCopy(item);
    if (sorted === undefined) return undefined;
    copy.push(sorted);
  }
  return copy;
}

function copyOfObject(object: object): object | undefined {
  const prototype: unknown = Object.getPrototypeOf(object);
  if (prototype !== Object.prototype && prototype !== null) return undefined;
  const copy: Record<string, unknown> = {};
  for (const name of Object.keys(object).sort()) {
    const sorted = sortedCopy((object as Record<string, unknown>)[name]);
    if (
      sorted === undefined ||
      name === '__proto__' ||
      name === 'toJSON' ||
      arrayIndex.test(name) ||
      !name.isWellFormed()
    )
      return undefined;
    copy[name] = sorted;
  }
  return copy;
}
