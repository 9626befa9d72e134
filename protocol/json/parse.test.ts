import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealpodError } from '../errors.ts';
import { canonicalJson, decodeBase64, decodeBase64Url, decodeHex, parseJson } from './index.ts';

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof SealpodError) return error.code;
    throw error;
  }
  return 'none';
};

describe('parseJson', () => {
  it('agrees with JSON.parse on every document without duplicates', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        fc.pre(!text.includes('__proto__'));
        expect(parseJson(text)).toEqual(JSON.parse(text));
      }),
    );
  });

  it.each([
    '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}',
    '[{"x":{"b":[],"c":{},"b":0}}]',
    '{"a":"}","b":"{","a":1}',
    '{"a":[1,{"z":0}],"a":1}',
    '{"":1,"":1}',
  ])('G-23: refuses duplicate member names: %s', (text) => {
    expect(codeOf(() => parseJson(text))).toBe('REQUEST_FORMAT');
  });

  it.each([
    '',
    '{',
    '[1,]',
    '{"a":1,}',
    "{'a':1}",
    'nul',
    '"\\ud800',
    '{"__proto__":1}',
    '{"\\u005f_proto__":1}',
    '\ufeff{}',
    '"a',
  ])('refuses %j', (text) => {
    expect(codeOf(() => parseJson(text))).toBe('REQUEST_FORMAT');
  });

  it('does not mistake values or equal names in different objects for duplicates', () => {
    expect(parseJson('{"a":"a","b":{"a":"a"},"c":[{"a":1},{"a":"\\"a\\""}]}')).toEqual({
      a: 'a',
      b: { a: 'a' },
      c: [{ a: 1 }, { a: '"a"' }],
    });
  });

  it('limits depth before parsing, size, and refuses bytes that are not UTF-8', () => {
    expect(codeOf(() => parseJson('['.repeat(100_000)))).toBe('REQUEST_FORMAT');
    expect(parseJson(`${'['.repeat(64)}${']'.repeat(64)}`)).toBeInstanceOf(Array);
    expect(codeOf(() => parseJson(`${'['.repeat(65)}${']'.repeat(65)}`))).toBe('REQUEST_FORMAT');
    expect(codeOf(() => parseJson('"aaaa"', { maxSize: 5 }))).toBe('REQUEST_TOO_LARGE');
    expect(codeOf(() => parseJson(Buffer.from([0x22, 0xff, 0x22])))).toBe('REQUEST_FORMAT');
  });

  it('uses the reason code it was given and never repeats the document', () => {
    try {
      parseJson('{"secret": hunter2}', { code: 'EV_FORMAT', what: 'evidence' });
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(SealpodError);
      expect((error as SealpodError).code).toBe('EV_FORMAT');
      expect(String((error as SealpodError).stack) + String((error as SealpodError).cause)).not.toContain('hunter2');
    }
  });
});

describe('canonicalJson', () => {
  it('is what RFC 8785 and the reference table have', () => {
    expect(canonicalJson({ c: { d: 'e' }, a: 'test', b: 1 })).toBe('{"a":"test","b":1,"c":{"d":"e"}}');
    expect(canonicalJson({ '\u20ac': 1, '\r': 2, '1': 3, '\ud83d\ude00': 4, '\ufb33': 5 })).toBe(
      '{"\\r":2,"1":3,"\u20ac":1,"\ud83d\ude00":4,"\ufb33":5}',
    );
    expect(canonicalJson([1e21, 1.5, -0, 0.000001])).toBe('[1e+21,1.5,0,0.000001]');
  });
  it('does not depend on member order', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'grapheme' }), fc.integer()), (object) => {
        fc.pre(!Object.hasOwn(object, '__proto__'));
        const reversed = Object.fromEntries(Object.entries(object).reverse());
        expect(canonicalJson(reversed)).toBe(canonicalJson(object));
      }),
    );
  });
  it('refuses lone surrogates', () => {
    expect(codeOf(() => canonicalJson('\ud800'))).toBe('REQUEST_FORMAT');
  });
});

describe('byte strings', () => {
  it('round-trip', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const buffer = Buffer.from(bytes);
        expect(decodeBase64(buffer.toString('base64')).equals(buffer)).toBe(true);
        expect(decodeBase64Url(buffer.toString('base64url')).equals(buffer)).toBe(true);
        expect(decodeHex(buffer.toString('hex').toUpperCase()).equals(buffer)).toBe(true);
      }),
    );
  });
  it.each(['YQ', 'YQ=', 'YR==', 'Y Q==', 'YQ==\n', '_w==', 'YQ==YQ=='])('refuses base64 %j', (text) => {
    expect(codeOf(() => decodeBase64(text))).toBe('REQUEST_FORMAT');
  });
  it.each(['YQ==', '/w', 'Y', 'YR'])('refuses base64url %j', (text) => {
    expect(codeOf(() => decodeBase64Url(text))).toBe('REQUEST_FORMAT');
  });
  it.each(['a', 'zz', '0x00', 'aa '])('refuses hex %j', (text) => {
    expect(codeOf(() => decodeHex(text))).toBe('REQUEST_FORMAT');
  });
  it('limits the size before decoding', () => {
    expect(codeOf(() => decodeBase64('AAAA'.repeat(3), { maxBytes: 8 }))).toBe('REQUEST_TOO_LARGE');
    expect(decodeBase64('AAAAAAAAAAA=', { maxBytes: 8 }).length).toBe(8);
  });
});
