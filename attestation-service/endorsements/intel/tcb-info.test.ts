import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { enclaveIdentity, tcbInfo } from '../../verifiers/dcap/testing/mint.ts';
import { parseEnclaveIdentity, parseTcbInfo } from './tcb-info.ts';

const refusesOnlyAsFormat = (read: () => unknown): boolean => {
  try {
    read();
    return true;
  } catch (thrown) {
    return thrown instanceof SealpodError && thrown.code === 'EV_FORMAT';
  }
};

describe('documents of TCB info and identities', () => {
  it('of whatever JSON are read or refused as malformed', () => {
    const property = fc.property(fc.jsonValue(), (any) => {
      const value = any as JsonValue;
      return refusesOnlyAsFormat(() => parseTcbInfo(value)) && refusesOnlyAsFormat(() => parseEnclaveIdentity(value));
    });
    fc.assert(property);
  });

  it('with any member made another are read or refused as malformed; without one that counts they are refused', () => {
    const documents = [tcbInfo('tdx'), tcbInfo('sgx'), enclaveIdentity('tdx')] as readonly Record<string, JsonValue>[];
    const parse = (document: JsonValue): unknown =>
      typeof document === 'object' && document !== null && 'mrsigner' in document
        ? parseEnclaveIdentity(document)
        : parseTcbInfo(document);
    const change = fc
      .constantFrom(...documents)
      .chain((document) => fc.tuple(fc.constant(document), fc.constantFrom(...Object.keys(document)), fc.jsonValue()));
    fc.assert(
      fc.property(change, ([document, name, value]) =>
        refusesOnlyAsFormat(() => parse({ ...document, [name]: value as JsonValue })),
      ),
    );
    const optional = ['tdxModuleIdentities'];
    for (const document of documents)
      for (const name of Object.keys(document).filter((member) => !optional.includes(member))) {
        const { [name]: _, ...rest } = document;
        const read = 'mrsigner' in document ? parseEnclaveIdentity : parseTcbInfo;
        expect(() => read(rest), name).toThrow(SealpodError);
      }
  });

  it('of version 2 have numbered components, of SGX only', () => {
    const numbered = (svn: number) =>
      Object.fromEntries(
        Array.from({ length: 16 }, (_, index) => [`sgxtcbcomp${String(index + 1).padStart(2, '0')}svn`, svn]),
      );
    const document = (svn: number): JsonValue => {
      const level = { tcb: { ...numbered(svn), pcesvn: 11 }, tcbDate: '2025-01-01T00:00:00Z', tcbStatus: 'UpToDate' };
      return { ...tcbInfo('sgx'), id: 'ignored', version: 2, tcbLevels: [level] } as JsonValue;
    };
    expect(parseTcbInfo(document(7))).toMatchObject({ tee: 'sgx', version: 2, levels: [{ sgx: Array(16).fill(7) }] });
    for (const svn of [-1, 256, 0.5]) expect(refusesOnlyAsFormat(() => parseTcbInfo(document(svn)))).toBe(true);
    expect(() => parseTcbInfo(document(256))).toThrow('must be a byte');
  });
});
