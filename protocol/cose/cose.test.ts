import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealpodError } from '../errors.ts';
import { type CborValue, decodeCbor, encodeCbor } from './cbor.ts';
import { parseCoseKey } from './key.ts';
import { coseHeader, parseCoseSign1, verifyCoseSign1 } from './sign1.ts';
import { cborTagged, mintCoseSign1 } from './testing/mint.ts';

const what = 'message';
const payload = Buffer.from('payload');

function codeOf(work: () => unknown): string {
  try {
    work();
    return 'none';
  } catch (thrown) {
    return thrown instanceof SealpodError ? thrown.code : String(thrown);
  }
}

function coseKey(key: KeyObject, curve: number): Map<CborValue, CborValue> {
  const { x, y } = key.export({ format: 'jwk' });
  return new Map<CborValue, CborValue>([
    [1, 2],
    [-1, curve],
    [-2, Buffer.from(String(x), 'base64url')],
    [-3, Buffer.from(String(y), 'base64url')],
  ]);
}

describe('COSE_Sign1', () => {
  it.each(['P-256', 'P-384', 'P-521'])('verifies with a key on %s, tagged or not, and with no other', (namedCurve) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve });
    const other = generateKeyPairSync('ec', { namedCurve }).publicKey;
    for (const tagged of [true, false]) {
      const message = parseCoseSign1(mintCoseSign1(payload, privateKey, { tagged }), { what });
      expect(message.payload).toEqual(payload);
      expect(verifyCoseSign1(message, publicKey)).toBe(true);
      expect(verifyCoseSign1(message, other)).toBe(false);
      expect(verifyCoseSign1(message, publicKey, Buffer.from('other data'))).toBe(false);
    }
  });

  it('verifies the example of RFC 9052 (appendix C.2.1)', () => {
    const message = Buffer.from(
      'd28443a10126a10442313154546869732069732074686520636f6e74656e742e58408eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36',
      'hex',
    );
    const key = parseCoseKey(
      new Map<CborValue, CborValue>([
        [1, 2],
        [-1, 1],
        [-2, Buffer.from('usWxHK2PmfnHKwXPS54m0kTcGJ90UiglWiGahtagnv8', 'base64url')],
        [-3, Buffer.from('IBOL-C3BttVivg-lSreASjpkttcsz-1rb7btKLv8EX4', 'base64url')],
      ]),
      what,
    );
    const parsed = parseCoseSign1(message, { what });
    expect(parsed.payload.toString()).toBe('This is the content.');
    expect(parsed.unprotectedHeader.get(coseHeader.keyId)).toEqual(new Uint8Array([0x31, 0x31]));
    expect(verifyCoseSign1(parsed, key)).toBe(true);
  });

  it('is refused where a byte of header, payload or signature differs', () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
    const genuine = mintCoseSign1(payload, privateKey);
    for (let at = 0; at < genuine.length; at += 1) {
      const changed = Buffer.from(genuine);
      changed[at] = (changed[at] ?? 0) ^ 1;
      let holds = false;
      try {
        holds = verifyCoseSign1(parseCoseSign1(changed, { what }), publicKey);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(SealpodError);
      }
      expect(holds, `byte ${at}`).toBe(false);
    }
  });

  it('takes the algorithm from the protected header only, and only one that fits the key', () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const verified = (message: Buffer): boolean => verifyCoseSign1(parseCoseSign1(message, { what }), publicKey);
    const unprotected = mintCoseSign1(payload, privateKey, {
      protectedHeader: new Map(),
      unprotectedHeader: new Map([[coseHeader.algorithm, -7]]),
    });
    expect(verified(unprotected)).toBe(false);
    expect(verified(mintCoseSign1(payload, privateKey, { algorithm: -35 }))).toBe(false);
    expect(verified(mintCoseSign1(payload, privateKey, { algorithm: 5 }))).toBe(false);
    expect(verified(mintCoseSign1(payload, privateKey, { algorithm: -37 }))).toBe(false);
  });

  it('is refused with parameters twice, critical ones, or of another shape', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const algorithm: [CborValue, CborValue] = [coseHeader.algorithm, -7];
    const code = (message: Buffer): string => codeOf(() => parseCoseSign1(message, { what }));
    expect(code(mintCoseSign1(payload, privateKey, { unprotectedHeader: new Map([algorithm]) }))).toBe('EV_FORMAT');
    const critical = new Map<CborValue, CborValue>([algorithm, [coseHeader.critical, [99]]]);
    expect(code(mintCoseSign1(payload, privateKey, { protectedHeader: critical }))).toBe('EV_FORMAT');
    const loose = new Map<CborValue, CborValue>([[coseHeader.critical, [1]]]);
    expect(code(mintCoseSign1(payload, privateKey, { unprotectedHeader: loose }))).toBe('EV_FORMAT');
    expect(code(encodeCbor([Buffer.alloc(0), new Map(), payload]))).toBe('EV_FORMAT');
    expect(code(encodeCbor([Buffer.alloc(0), new Map(), null, payload]))).toBe('EV_FORMAT');
    expect(code(cborTagged(17, mintCoseSign1(payload, privateKey, { tagged: false })))).toBe('EV_FORMAT');
    expect(code(Buffer.concat([mintCoseSign1(payload, privateKey), Buffer.from([0])]))).toBe('EV_FORMAT');
  });
});

describe('COSE_Key', () => {
  it('is read on each curve, and refused off its curve or of another type', () => {
    for (const [index, namedCurve] of ['P-256', 'P-384', 'P-521'].entries()) {
      const { publicKey } = generateKeyPairSync('ec', { namedCurve });
      const key = coseKey(publicKey, index + 1);
      expect(parseCoseKey(key, what).equals(publicKey)).toBe(true);
      const x = Buffer.from(key.get(-2) as Buffer);
      x[5] = (x[5] ?? 0) ^ 1;
      expect(codeOf(() => parseCoseKey(new Map([...key, [-2, x]]), what))).toBe('EV_FORMAT');
      expect(codeOf(() => parseCoseKey(new Map([...key, [-2, x.subarray(1)]]), what))).toBe('EV_FORMAT');
      expect(codeOf(() => parseCoseKey(new Map([...key, [1, 4]]), what))).toBe('EV_FORMAT');
      expect(codeOf(() => parseCoseKey(new Map([...key, [-1, 9]]), what))).toBe('EV_FORMAT');
    }
    const { publicKey } = generateKeyPairSync('ed25519');
    const x = Buffer.from(String(publicKey.export({ format: 'jwk' }).x), 'base64url');
    const octets = new Map<CborValue, CborValue>([
      [1, 1],
      [-1, 6],
      [-2, x],
    ]);
    expect(parseCoseKey(octets, what).equals(publicKey)).toBe(true);
  });
});

describe('CBOR', () => {
  it('with a key twice, an unknown tag, a tail, too much or too deep is refused by code', () => {
    const code = (hex: string): string => codeOf(() => decodeCbor(Buffer.from(hex, 'hex'), { what }));
    expect(code('a201020103')).toBe('EV_FORMAT');
    expect(code('a2010218010 3'.replace(' ', ''))).toBe('EV_FORMAT');
    expect(code('c100')).toBe('EV_FORMAT');
    expect(code('0000')).toBe('EV_FORMAT');
    expect(code('9bffffffffffffffff')).toBe('EV_FORMAT');
    expect(code('5b001fffffffffffff')).toBe('EV_FORMAT');
    expect(code('81'.repeat(60_000))).toBe('EV_FORMAT');
    expect(code('00'.repeat(70_000))).toBe('REQUEST_TOO_LARGE');
  });

  it('any bytes are one item or EV_FORMAT, and parsing a message never throws otherwise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(['none', 'EV_FORMAT']).toContain(codeOf(() => decodeCbor(bytes, { what })));
        expect(['none', 'EV_FORMAT']).toContain(codeOf(() => parseCoseSign1(bytes, { what })));
      }),
      { numRuns: 2000 },
    );
  });
});
