import { generateKeyPairSync } from 'node:crypto';
import { type CborValue, encodeCbor } from '@sealpod/protocol/cose';
import { cborTagged, mintCoseSign1 } from '@sealpod/protocol/cose/testing';
import { SealpodError } from '@sealpod/protocol/errors';
import { encode, Token, Type } from 'cborg';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openSigners } from '../config.ts';
import { readReferenceValueMessage } from '../message.ts';
import { openCorim } from './index.ts';

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const publicPem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
const config = { signers: [{ name: 'vendor', publicKey: publicPem }] };
const signers = openSigners(config);
const now = new Date('2026-06-01T00:00:00Z');

/** A tagged item inside another: cborg encodes tags of an item by a token of their own. */
class Tagged {
  readonly tag: number;
  readonly value: unknown;
  constructor(tag: number, value: unknown) {
    this.tag = tag;
    this.value = value;
  }
}
const typeEncoders = {
  Object: (value: unknown) =>
    value instanceof Tagged
      ? [new Token(Type.tag, value.tag), ...([encodeTokens(value.value)].flat() as Token[])]
      : null,
};
function encodeTokens(value: unknown): Token[] {
  if (value instanceof Uint8Array) return [new Token(Type.bytes, value)];
  if (typeof value === 'number') return [new Token(value < 0 ? Type.negint : Type.uint, value)];
  throw new Error('only bytes and numbers are tagged in these tests');
}
const cbor = (value: unknown): Buffer => Buffer.from(encode(value, { typeEncoders }));
const tagged = (tag: number, value: unknown) => new Tagged(tag, value);

const seconds = (date: string): number => Date.parse(date) / 1000;
const digest = Buffer.alloc(32, 7);
const measurement = (key: unknown, values: [number, unknown][]) =>
  new Map<number, unknown>([
    [0, key],
    [1, new Map(values)],
  ]);
const environment = new Map([
  [
    0,
    new Map([
      [1, 'ACME Ltd.'],
      [2, 'RoadRunner'],
    ]),
  ],
]);
const comid = (measurements: unknown[], env: unknown = environment): Buffer =>
  cbor(
    new Map<number, unknown>([
      [1, new Map([[0, 'tag']])],
      [4, new Map([[0, [[env, measurements]]]])],
    ]),
  );
const plain = [
  measurement('firmware', [
    [
      2,
      [
        [1, digest],
        [7, Buffer.alloc(48, 1)],
      ],
    ],
  ]),
  measurement(700, [
    [4, tagged(560, Buffer.from('0102', 'hex'))],
    [1, tagged(552, 3)],
  ]),
  measurement(tagged(37, Buffer.from('31fb5abf023e4992aa4e95f9c1503bfa', 'hex')), [
    [2, [['sha-256', digest]]],
    [11, 'loader'],
    [8, 'S1'],
  ]),
  measurement('log', [[14, new Map([[1, [[7, digest]]]])]]),
];
const manifest = (comids: Buffer[], validity?: Map<number, unknown>): Buffer =>
  cborTagged(
    501,
    cbor(
      new Map<number, unknown>([
        [0, 'corim'],
        [1, comids.map((bytes) => tagged(506, bytes))],
        ...(validity === undefined ? [] : ([[4, validity]] as [number, unknown][])),
      ]),
    ),
  );
const validity = new Map<number, unknown>([
  [0, tagged(1, seconds('2026-05-01T00:00:00Z'))],
  [1, tagged(1, seconds('2026-12-01T00:00:00Z'))],
]);
const header = (more: [number, CborValue][] = []): Map<CborValue, CborValue> =>
  new Map<CborValue, CborValue>([[1, -7], [3, 'application/rim+cbor'], ...more]);
const signed = (payload: Buffer, protectedHeader = header(), key = privateKey): Buffer =>
  mintCoseSign1(payload, key, { protectedHeader });
const code = (work: () => unknown): string => {
  try {
    work();
    return 'OK';
  } catch (thrown) {
    return thrown instanceof SealpodError ? thrown.code : String(thrown);
  }
};
const message = (bytes: Buffer): string => JSON.stringify({ type: 'corim', payload: bytes.toString('base64') });

const genuine = signed(manifest([comid(plain)], validity));
const values = {
  'ACME_Ltd./RoadRunner/firmware/digests': [digest.toString('hex'), '01'.repeat(48)],
  'ACME_Ltd./RoadRunner/claim700/raw_bytes': '0102',
  'ACME_Ltd./RoadRunner/claim700/svn': [3],
  'ACME_Ltd./RoadRunner/31fb5abf-023e-4992-aa4e-95f9c1503bfa/loader/S1/digests': [digest.toString('hex')],
  'ACME_Ltd./RoadRunner/log/1/digests': [digest.toString('hex')],
};

describe('a signed CoRIM', () => {
  it.each([
    ['plain', genuine],
    ['with the outer tags', cborTagged(500, cborTagged(502, genuine))],
  ])('%s: its reference values, with signer and dates', (_what, bytes) => {
    const attributed = readReferenceValueMessage(message(bytes), { config, signers, now });
    expect(attributed.values).toEqual(values);
    expect(attributed).toMatchObject({
      expiresAt: '2026-12-01T00:00:00.000Z',
      provenance: { kind: 'signed', format: 'corim', signers: ['vendor'], issuedAt: '2026-05-01T00:00:00.000Z' },
    });
  });

  it('is dated by corim-meta or CWT claims where the manifest is not', () => {
    const meta = encodeCbor(
      new Map<CborValue, CborValue>([
        [0, new Map<CborValue, CborValue>([[0, 'ACME']])],
        [
          1,
          new Map<CborValue, CborValue>([
            [0, seconds('2026-04-01T00:00:00Z')],
            [1, seconds('2026-07-01T00:00:00Z')],
          ]),
        ],
      ]),
    );
    const claims = new Map<CborValue, CborValue>([
      [1, 'ACME'],
      [6, seconds('2026-04-01T00:00:00Z')],
    ]);
    for (const more of [
      [8, meta],
      [15, claims],
    ] as [number, CborValue][]) {
      const { statement } = openCorim(signed(manifest([comid(plain)]), header([more])), signers);
      expect(statement.issuedAt.toISOString()).toBe('2026-04-01T00:00:00.000Z');
    }
    expect(code(() => openCorim(signed(manifest([comid(plain)])), signers))).toBe('REQUEST_FORMAT');
  });

  it('is refused with any byte changed', () => {
    for (let at = 0; at < genuine.length; at += 1) {
      const changed = Buffer.from(genuine);
      changed[at] = (changed[at] ?? 0) ^ 1;
      const refused = code(() => readReferenceValueMessage(message(changed), { config, signers, now }));
      expect(
        ['RV_SIGNATURE', 'REQUEST_FORMAT', 'UNSUPPORTED', 'REQUEST_TOO_LARGE', 'RV_UNSIGNED'],
        `byte ${at}: ${refused}`,
      ).toContain(refused);
    }
  });

  it.each([
    ['by another key', signed(manifest([comid(plain)], validity), header(), other), 'RV_SIGNATURE'],
    [
      'of another content type',
      signed(
        manifest([comid(plain)], validity),
        new Map<CborValue, CborValue>([
          [1, -7],
          [3, 'text/plain'],
        ]),
      ),
      'REQUEST_FORMAT',
    ],
    ['without content type', signed(manifest([comid(plain)], validity), new Map([[1, -7]])), 'REQUEST_FORMAT'],
    [
      'without tags',
      signed(
        cborTagged(
          501,
          cbor(
            new Map([
              [0, 'x'],
              [4, validity],
            ] as [number, unknown][]),
          ),
        ),
      ),
      'REQUEST_FORMAT',
    ],
    [
      'with a CoSWID',
      signed(
        cborTagged(
          501,
          cbor(
            new Map([
              [1, [tagged(505, digest)]],
              [4, validity],
            ] as [number, unknown][]),
          ),
        ),
      ),
      'UNSUPPORTED',
    ],
    ['without values', signed(manifest([comid([])], validity)), 'REQUEST_FORMAT'],
    [
      'for one instance',
      signed(manifest([comid(plain, new Map<number, unknown>([[1, tagged(550, digest)]]))], validity)),
      'UNSUPPORTED',
    ],
    [
      'with a minimum version',
      signed(manifest([comid([measurement('a', [[1, tagged(553, 3)]])])], validity)),
      'UNSUPPORTED',
    ],
    [
      'with a masked value',
      signed(manifest([comid([measurement('a', [[4, tagged(563, digest)]])])], validity)),
      'UNSUPPORTED',
    ],
    [
      'with a member that is not understood',
      signed(manifest([comid([measurement('a', [[3, new Map()]])])], validity)),
      'UNSUPPORTED',
    ],
    [
      'with a digest of no length that there is',
      signed(manifest([comid([measurement('a', [[2, [[1, Buffer.alloc(5)]]]])])], validity)),
      'REQUEST_FORMAT',
    ],
    [
      'with two raw values',
      signed(
        manifest(
          [comid([measurement('a', [[4, Buffer.alloc(1)]]), measurement('a', [[4, Buffer.alloc(2)]])])],
          validity,
        ),
      ),
      'REQUEST_FORMAT',
    ],
    [
      'whose time is over',
      signed(
        manifest(
          [comid(plain)],
          new Map([
            [0, 1000],
            [1, 2000],
          ]),
        ),
      ),
      'RV_EXPIRED',
    ],
    [
      'from the future',
      signed(manifest([comid(plain)], new Map([[0, seconds('2026-07-01T00:00:00Z')]]))),
      'REQUEST_FORMAT',
    ],
    ['that is no CBOR', Buffer.from('nothing'), 'REQUEST_FORMAT'],
  ])('%s is refused', (_what, bytes, expected) => {
    expect(code(() => readReferenceValueMessage(message(bytes as Buffer), { config, signers, now }))).toBe(expected);
  });

  it('unsigned is as good as its sender', () => {
    const bytes = manifest([comid(plain)], validity);
    expect(code(() => readReferenceValueMessage(message(bytes), { config, signers, now }))).toBe('RV_UNSIGNED');
    const administrator = { subject: 'a', key: 'a' };
    const attributed = readReferenceValueMessage(message(bytes), { config, signers, now, administrator });
    expect(attributed).toMatchObject({ values, provenance: { kind: 'administrator' } });
  });

  it('whatever bytes come instead are a typed refusal', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const refused = code(() => openCorim(bytes, signers));
        expect(['REQUEST_FORMAT', 'UNSUPPORTED', 'REQUEST_TOO_LARGE']).toContain(refused);
      }),
    );
  });
});
