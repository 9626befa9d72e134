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
    const text = canonicalize(value);
    if (text !== undefined) return text;
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', 'a value has no canonical JSON form', { cause });
  }
  throw new SealpodError('REQUEST_FORMAT', 'a value has no canonical JSON form');
}
