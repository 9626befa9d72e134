import canonicalize from 'canonicalize';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from './canonical.ts';
import type { JsonValue } from './parse.ts';

describe('canonical JSON', () => {
  it('is what the reference implementation of RFC 8785 writes, of any value', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5, stringUnit: 'binary' }), (value) => {
        expect(canonicalJson(value as JsonValue)).toBe(canonicalize(value));
      }),
      { numRuns: 2000 },
    );
  });

  it('sorts by UTF-16 units, names that look like array indices too, and writes numbers as ECMAScript', () => {
    const value = { b: 1, '10': 1, '9': 1, '€': 1, '\u{1f600}': 1, דּ: 1, a: [1e21, 1e-7, -0, 333333333.3333333] };
    expect(canonicalJson(value)).toBe(canonicalize(value));
    expect(canonicalJson({ b: 1, a: { d: 1, c: 2 } })).toBe('{"a":{"c":2,"d":1},"b":1}');
  });

  it('has none for what is no JSON', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, '\ud800', { '\ud800': 1 }, undefined])
      expect(() => canonicalJson(value as JsonValue)).toThrow(expect.objectContaining({ code: 'REQUEST_FORMAT' }));
  });
});
