import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { applyPatch, type PatchOperation } from './json-patch.ts';

/** Examples of RFC 6902, appendix A. */
const examples: [name: string, document: unknown, patch: PatchOperation[], result: unknown][] = [
  ['A.1', { foo: 'bar' }, [{ op: 'add', path: '/baz', value: 'qux' }], { foo: 'bar', baz: 'qux' }],
  ['A.2', { foo: ['bar', 'baz'] }, [{ op: 'add', path: '/foo/1', value: 'qux' }], { foo: ['bar', 'qux', 'baz'] }],
  ['A.3', { baz: 'qux', foo: 'bar' }, [{ op: 'remove', path: '/baz' }], { foo: 'bar' }],
  ['A.4', { foo: ['bar', 'qux', 'baz'] }, [{ op: 'remove', path: '/foo/1' }], { foo: ['bar', 'baz'] }],
  ['A.5', { baz: 'qux', foo: 'bar' }, [{ op: 'replace', path: '/baz', value: 'boo' }], { baz: 'boo', foo: 'bar' }],
  [
    'A.6',
    { foo: { bar: 'baz', waldo: 'fred' }, qux: { corge: 'grault' } },
    [{ op: 'move', from: '/foo/waldo', path: '/qux/thud' }],
    { foo: { bar: 'baz' }, qux: { corge: 'grault', thud: 'fred' } },
  ],
  [
    'A.7',
    { foo: ['all', 'grass', 'cows', 'eat'] },
    [{ op: 'move', from: '/foo/1', path: '/foo/3' }],
    { foo: ['all', 'cows', 'eat', 'grass'] },
  ],
  [
    'A.8',
    { baz: 'qux', foo: ['a', 2, 'c'] },
    [{ op: 'test', path: '/foo/1', value: 2 }],
    { baz: 'qux', foo: ['a', 2, 'c'] },
  ],
  [
    'A.10',
    { foo: 'bar' },
    [{ op: 'add', path: '/child', value: { grandchild: {} } }],
    { foo: 'bar', child: { grandchild: {} } },
  ],
  ['A.14', { '/': 9, '~1': 10 }, [{ op: 'test', path: '/~01', value: 10 }], { '/': 9, '~1': 10 }],
  ['A.16', { foo: ['bar'] }, [{ op: 'add', path: '/foo/-', value: ['abc', 'def'] }], { foo: ['bar', ['abc', 'def']] }],
  [
    'copy',
    { a: { b: 1 } },
    [
      { op: 'copy', from: '/a', path: '/c' },
      { op: 'add', path: '/c/b', value: 2 },
    ],
    { a: { b: 1 }, c: { b: 2 } },
  ],
];

const refused: [name: string, document: unknown, patch: PatchOperation[]][] = [
  ['A.9 test fails', { baz: 'qux' }, [{ op: 'test', path: '/baz', value: 'bar' }]],
  ['A.12 missing parent', { foo: 'bar' }, [{ op: 'add', path: '/baz/bat', value: 'qux' }]],
  ['A.15 text is no number', { '/': 9, '~1': 10 }, [{ op: 'test', path: '/~01', value: '10' }]],
  ['missing member', {}, [{ op: 'remove', path: '/a' }]],
  ['missing member to replace', {}, [{ op: 'replace', path: '/a', value: 1 }]],
  ['inherited member', {}, [{ op: 'remove', path: '/toString' }]],
  ['beyond the end', [1], [{ op: 'add', path: '/2', value: 1 }]],
  ['leading zero', [1, 2], [{ op: 'remove', path: '/01' }]],
  ['missing value', {}, [{ op: 'add', path: '/a' }]],
  ['into itself', { a: { b: 1 } }, [{ op: 'move', from: '/a', path: '/a/b' }]],
  ['no pointer', {}, [{ op: 'add', path: 'a', value: 1 }]],
  ['unknown operation', {}, [{ op: 'merge' as 'add', path: '/a', value: 1 }]],
];

describe('JSON Patch', () => {
  it.each(examples)('%s', (_name, document, patch, result) => {
    const before = structuredClone(document);
    expect(applyPatch(document, patch)).toEqual(result);
    expect(document).toEqual(before);
  });

  it.each(refused)('refuses: %s', (_name, document, patch) => {
    expect(() => applyPatch(document, patch)).toThrow();
  });

  it('takes __proto__ for a name', () => {
    const patched = applyPatch({}, [{ op: 'add', path: '/__proto__', value: { polluted: true } }]);
    expect(Object.keys(patched as object)).toEqual(['__proto__']);
    expect(Object.getPrototypeOf(patched)).toBe(Object.prototype);
  });

  it('undoes an addition by its removal, at any name', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.string(), (document, name) => {
        fc.pre(!Object.hasOwn(document, name));
        const path = `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
        const added = applyPatch(document, [{ op: 'add', path, value: 1 }]);
        expect(Object.hasOwn(added as object, name)).toBe(true);
        expect(JSON.stringify(applyPatch(added, [{ op: 'remove', path }]))).toBe(
          JSON.stringify(structuredClone(document)),
        );
      }),
    );
  });
});
