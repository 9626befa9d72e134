import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealpodError } from './errors.ts';
import { formatResourceUri, parseResourceName, parseResourceUri, resourceHttpPath } from './resource-uri.ts';

function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof SealpodError) return error.code;
    throw error;
  }
  return 'accepted';
}

describe('resource URI', () => {
  it.each([
    ['kbs:///default/key/1', 'resource', 'default/key/1', undefined, 'kbs:///default/key/1'],
    ['kbs+resource:///default/key/1', 'resource', 'default/key/1', undefined, 'kbs:///default/key/1'],
    ['kbs://other.example:8080/default/key/1', 'resource', 'default/key/1', undefined, 'kbs:///default/key/1'],
    ['kbs+pkcs11:///wrap-key?x=1', 'pkcs11', 'wrap-key', 'x=1', 'kbs+pkcs11:///wrap-key?x=1'],
  ])('parses %s', (text, plugin, path, query, canonical) => {
    const uri = parseResourceUri(text);
    expect(uri).toEqual(query === undefined ? { plugin, path } : { plugin, path, query });
    expect(formatResourceUri(uri)).toBe(canonical);
  });

  it.each([
    '',
    'default/key/1',
    'kbs:/default/key/1',
    'kbs://host',
    'kbs:///',
    'kbs+:///a/b/c',
    'file:///a',
    'kbs:///a/b/c#d',
  ])('refuses %j', (text) => {
    expect(code(() => parseResourceUri(text))).toBe('RES_NAME');
  });

  it('gives the path of the broker', () => {
    expect(resourceHttpPath(parseResourceUri('kbs:///default/key/1'))).toBe('/kbs/v0/resource/default/key/1');
    expect(resourceHttpPath(parseResourceUri('kbs+p:///a?b=c'))).toBe('/kbs/v0/p/a?b=c');
  });

  it.each([
    'kbs:///a/../b/c/d',
    'kbs:///a/b/..',
    'kbs:///a/b/.hidden',
    'kbs:///a//c',
    'kbs:////a/b/c',
    'kbs:///a/b',
    'kbs:///a/b/c/d',
    'kbs:///a/b/c%2fd',
    'kbs:///a/b/%2e%2e',
    'kbs:///a/b/c\\d',
    'kbs:///a/b/ä',
    'kbs:///a/b/c d',
    'kbs:///a/b/c\r\nHost: x',
    'kbs:///kbs:///default/key/1',
  ])('G-24: refuses %j before it reaches a broker', (text) => {
    expect(code(() => resourceHttpPath(parseResourceUri(text)))).toBe('RES_NAME');
  });

  it('G-24: what is accepted is exactly three plain segments, and no URL parser reads it differently', () => {
    const segment = fc.string({
      unit: fc.constantFrom('a', 'Z', '0', '_', '-', '.', '/', '%', '2', 'f', 'ä', ' ', '\\', '?', '#', ':'),
      maxLength: 6,
    });
    fc.assert(
      fc.property(segment, segment, segment, (one, two, three) => {
        const path = `${one}/${two}/${three}`;
        if (code(() => parseResourceName(path)) !== 'accepted') return;
        expect(path).toMatch(/^[\w-][\w.-]*\/[\w-][\w.-]*\/[\w-][\w.-]*$/);
        expect(new URL(resourceHttpPath({ plugin: 'resource', path }), 'https://kbs').pathname).toBe(
          `/kbs/v0/resource/${path}`,
        );
      }),
    );
  });
});
