import { createHash, createPublicKey, verify, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealpodError } from '../errors.ts';
import { vectorPath } from '../testing/vectors.ts';
import { parseQuote, parseSgxEvidence, parseTdxEvidence, type Quote } from './index.ts';

const bytes = (length: number, fill = 0): Buffer => Buffer.alloc(length, fill);
const number = (value: number, length: 2 | 4): Buffer => {
  const buffer = bytes(length);
  buffer.writeUIntLE(value, 0, length);
  return buffer;
};

interface Shape {
  readonly version: number;
  readonly keyType?: number;
  readonly teeType?: number;
  readonly descriptor?: readonly [number, number];
  readonly body: Buffer;
  readonly certification?: Buffer;
  readonly outerType?: number;
  readonly behind?: Buffer;
}

const type = (value: number, content: Buffer): Buffer =>
  Buffer.concat([number(value, 2), number(content.length, 4), content]);

/** A quote of which nothing is signed. */
function quote({ version, keyType = 2, teeType = 0x81, descriptor, body, ...rest }: Shape): Buffer {
  const { certification = type(5, Buffer.from('PEM')), outerType = 6, behind = bytes(0) } = rest;
  const inner = Buffer.concat([bytes(384, 7), bytes(64, 8), number(3, 2), Buffer.from('abc'), certification]);
  const section = Buffer.concat([bytes(64, 5), bytes(64, 6), version === 3 ? inner : type(outerType, inner)]);
  return Buffer.concat([
    number(version, 2),
    number(keyType, 2),
    number(teeType, 4),
    bytes(4),
    bytes(16, 2),
    bytes(20, 3),
    ...(descriptor === undefined ? [] : [number(descriptor[0], 2), number(descriptor[1], 4)]),
    body,
    number(section.length, 4),
    section,
    behind,
  ]);
}

const codeOf = (read: () => unknown): string => {
  try {
    read();
    return 'none';
  } catch (thrown) {
    if (thrown instanceof SealpodError) return thrown.code;
    throw thrown;
  }
};

describe('quotes', () => {
  const shapes: Readonly<Record<string, Shape>> = {
    'version 3, SGX': { version: 3, teeType: 0, body: bytes(384, 1) },
    'version 4, SGX': { version: 4, teeType: 0, body: bytes(384, 1) },
    'version 4, TDX': { version: 4, body: bytes(584, 1) },
    'version 5, SGX': { version: 5, teeType: 0, descriptor: [1, 384], body: bytes(384, 1) },
    'version 5, TDX 1.0': { version: 5, descriptor: [2, 584], body: bytes(584, 1) },
    'version 5, TDX 1.5': { version: 5, descriptor: [3, 648], body: bytes(648, 1) },
    'version 5, TDX 1.5 with the identity of the TD': { version: 5, descriptor: [4, 885], body: bytes(885, 1) },
  };

  it.each(Object.entries(shapes))('of %s are parsed; none may be cut short', (_, shape) => {
    const whole = quote(shape);
    const parsed = parseQuote(whole);
    expect(parsed.body.tee).toBe(shape.teeType === 0 ? 'sgx' : 'tdx');
    expect(parsed.signed.length).toBe(48 + (shape.descriptor ? 6 : 0) + shape.body.length);
    expect(parsed.descriptor?.readUInt32LE(2)).toBe(shape.descriptor?.[1]);
    expect([parsed.signature[0], parsed.attestationKey[63], parsed.qe.signature[0]]).toEqual([5, 6, 8]);
    expect(parsed.qe.authenticationData.toString()).toBe('abc');
    expect(parsed.qe.certification).toEqual({ kind: 'certificate-chain', type: 5, chain: 'PEM' });
    for (let length = 0; length < whole.length; length += 1)
      expect(codeOf(() => parseQuote(whole.subarray(0, length)))).toBe('EV_FORMAT');
    expect(parseQuote(Buffer.concat([whole, bytes(100)])).signed).toEqual(parsed.signed);
  });

  it('of unknown version, key, TEE or body are refused', () => {
    const td = { version: 4, body: bytes(584) };
    const wrong: readonly Shape[] = [
      { ...td, version: 2 },
      { ...td, version: 6 },
      { ...td, keyType: 3 },
      { ...td, teeType: 1 },
      { ...td, outerType: 5 },
      { version: 5, descriptor: [5, 584], body: bytes(584) },
      { version: 5, descriptor: [0, 384], body: bytes(384) },
      { version: 5, descriptor: [3, 584], body: bytes(584) },
      { version: 5, descriptor: [2, 648], body: bytes(648) },
      { version: 5, descriptor: [1, 384], body: bytes(384) },
      { version: 5, teeType: 0, descriptor: [2, 584], body: bytes(584) },
    ];
    for (const shape of wrong) expect(codeOf(() => parseQuote(quote(shape)))).toBe('EV_FORMAT');
    expect(codeOf(() => parseQuote(bytes(64 * 1024 + 1)))).toBe('REQUEST_TOO_LARGE');
  });

  it('have lengths that agree: of the signature, of what is in it, of what is in that', () => {
    const whole = quote({ version: 4, body: bytes(584) });
    const lengthAt = { signature: 632, outer: 636 + 128 + 2, authentication: 636 + 134 + 448 };
    for (const [name, at] of Object.entries(lengthAt))
      for (const by of [-1, 1]) {
        const changed = Buffer.from(whole);
        changed[at] = (changed[at] ?? 0) + by;
        const behind = Buffer.concat([changed, bytes(8)]);
        expect(
          codeOf(() => parseQuote(behind)),
          `${name} ${by}`,
        ).toBe('EV_FORMAT');
      }
  });

  it('bring certification data of the types 1 to 5 and 7, each of its own length', () => {
    const of = (certification: Buffer) =>
      parseQuote(quote({ version: 4, body: bytes(584), certification })).qe.certification;
    for (const [value, length] of [
      [1, 16],
      [2, 256],
      [3, 384],
    ] as const) {
      const platformId = bytes(length, 9);
      const content = Buffer.concat([platformId, bytes(16, 4), number(13, 2), Buffer.from([1, 2])]);
      const fields = { platformId, cpuSvn: bytes(16, 4), pceSvn: 13, pceId: Buffer.from([1, 2]) };
      expect(of(type(value, content))).toEqual({ kind: 'platform-id', type: value, ...fields });
      expect(codeOf(() => of(type(value, content.subarray(1))))).toBe('EV_FORMAT');
      expect(codeOf(() => of(type(value, Buffer.concat([content, bytes(1)]))))).toBe('EV_FORMAT');
    }
    expect(of(type(4, bytes(3)))).toEqual({ kind: 'leaf-certificate', type: 4, certificate: bytes(3) });
    expect(of(type(7, bytes(3)))).toEqual({ kind: 'platform-manifest', type: 7, manifest: bytes(3) });
    for (const value of [0, 6, 8, 0xffff]) expect(codeOf(() => of(type(value, bytes(3))))).toBe('EV_FORMAT');
  });

  it('of whatever bytes are parsed or refused, and nothing else happens', () => {
    const tries = fc.uint8Array({ maxLength: 3000 });
    fc.assert(fc.property(tries, (any) => ['none', 'EV_FORMAT'].includes(codeOf(() => parseQuote(any)))));
    const templates = Object.values(shapes).map(quote);
    const mutation = fc.tuple(
      fc.constantFrom(...templates),
      fc.array(fc.tuple(fc.nat({ max: 2000 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 8 }),
    );
    const property = fc.property(mutation, ([template, changes]) => {
      const changed = Buffer.from(template);
      for (const [at, value] of changes) if (at < changed.length) changed[at] = value;
      return ['none', 'EV_FORMAT'].includes(codeOf(() => parseQuote(changed)));
    });
    fc.assert(property, { numRuns: 500 });
  });

  it('keep the fields of a TD report apart', () => {
    const body = Buffer.from(Array.from({ length: 648 }, (_, at) => at & 0xff));
    body.writeBigUInt64LE((1n << 28n) | (1n << 63n) | 1n, 120);
    const parsed = parseQuote(quote({ version: 5, descriptor: [3, 648], body })).body;
    if (parsed.tee !== 'tdx') throw new Error('expected a TD');
    const { report } = parsed;
    const { teeTcbSvn, mrSeam, mrSignerSeam, seamAttributes, tdAttributes, xfam, mrTd, mrConfigId, mrOwner } = report;
    const { mrOwnerConfig, rtmrs, reportData, teeTcbSvn2 = bytes(0), mrServiceTd = bytes(0) } = report;
    const first = [teeTcbSvn, mrSeam, mrSignerSeam, seamAttributes, tdAttributes, xfam, mrTd, mrConfigId, mrOwner];
    expect(Buffer.concat([...first, mrOwnerConfig, ...rtmrs, reportData, teeTcbSvn2, mrServiceTd])).toEqual(body);
    expect(report.attributes).toEqual({
      debug: true,
      septVeDisable: true,
      protectionKeys: false,
      keyLocker: false,
      perfmon: true,
    });
  });
});

describe('evidence', () => {
  it('is base64 of a quote, and of an event log where there is one', () => {
    const text = Buffer.from('quote').toString('base64');
    expect(String(parseSgxEvidence({ quote: text }))).toBe('quote');
    expect(parseTdxEvidence({ quote: text })).toEqual({ quote: Buffer.from('quote') });
    for (const none of [null, ''])
      expect(parseTdxEvidence({ quote: text, cc_eventlog: none }).eventLog).toBeUndefined();
    expect(String(parseTdxEvidence({ quote: text, cc_eventlog: text }).eventLog)).toBe('quote');
    for (const wrong of [null, [], 'text', {}, { quote: 1 }, { quote: '?' }, { quote: text, cc_eventlog: 1 }])
      expect(codeOf(() => parseTdxEvidence(wrong))).toBe('EV_FORMAT');
    expect(codeOf(() => parseSgxEvidence({ quote: Buffer.alloc(65537).toString('base64') }))).not.toBe('none');
  });
});

/** Whether quote, report of the quoting enclave and attestation key are as their maker signed them. */
function signatures({ signed, signature, attestationKey, qe }: Quote): boolean[] {
  const [x, y] = [attestationKey.subarray(0, 32), attestationKey.subarray(32)].map((part) =>
    part.toString('base64url'),
  );
  const key = createPublicKey({ key: { kty: 'EC', crv: 'P-256', x: x ?? '', y: y ?? '' }, format: 'jwk' });
  const { certification, report, authenticationData } = qe;
  if (certification.kind !== 'certificate-chain') throw new Error(`unexpected ${certification.kind}`);
  const platform = new X509Certificate(certification.chain).publicKey;
  const bound = createHash('sha256').update(attestationKey).update(authenticationData).digest();
  return [
    verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signature),
    verify('sha256', report.raw, { key: platform, dsaEncoding: 'ieee-p1363' }, qe.signature),
    report.reportData.equals(Buffer.concat([bound, bytes(32)])),
  ];
}

const recorded = [
  { path: 'tdx/tdx_quote_4.dat', version: 4, body: '1.0' },
  { path: 'tdx/tdx_quote_5.dat', version: 5, body: '1.5' },
  { path: 'az-tdx-vtpm/td-quote.bin', version: 4, body: '1.0' },
  { path: 'sgx/occlum_quote.dat', version: 3, body: 'sgx' },
] as const;

describe.each(recorded)('recorded $path', ({ path, version, body }) => {
  const file = vectorPath(path);
  it.skipIf(!existsSync(file))(
    `parses, its signatures verify, and bytes of it do not change unnoticed (needs ${file})`,
    () => {
      const raw = readFileSync(file);
      const parsed = parseQuote(raw);
      expect(parsed.header.version).toBe(version);
      expect(parsed.body.tee === 'sgx' ? 'sgx' : parsed.body.report.version).toBe(body);
      expect(parsed.header.vendorId.toString('hex')).toBe('939a7233f79c4ca9940a0db3957f0607');
      expect(signatures(parsed)).toEqual([true, true, true]);
      for (let at = 0; at < parsed.signed.length; at += 97) {
        const changed = Buffer.from(raw);
        changed[at] = (changed[at] ?? 0) ^ 0x80;
        const code = codeOf(() => expect(signatures(parseQuote(changed))[0]).toBe(false));
        expect(['none', 'EV_FORMAT']).toContain(code);
      }
    },
  );
});

const claims = vectorPath('tdx/parse_tdx_claims_expected.json');
const quoted = vectorPath('tdx/tdx_quote_4.dat');
it.skipIf(!existsSync(claims) || !existsSync(quoted))(
  `a recorded TD has the measurements of its claims (needs ${claims})`,
  () => {
    const { body } = parseQuote(readFileSync(quoted));
    if (body.tee !== 'tdx') throw new Error('expected a TD');
    const { report } = body;
    const expected = (JSON.parse(readFileSync(claims, 'utf8')) as { quote: { body: Record<string, string> } }).quote
      .body;
    const hex = (buffer: Buffer | undefined): string => buffer?.toString('hex') ?? '';
    expect({
      mr_config_id: hex(report.mrConfigId),
      mr_owner: hex(report.mrOwner),
      mr_owner_config: hex(report.mrOwnerConfig),
      mr_seam: hex(report.mrSeam),
      mr_td: hex(report.mrTd),
      mrsigner_seam: hex(report.mrSignerSeam),
      report_data: hex(report.reportData),
      rtmr_0: hex(report.rtmrs[0]),
      rtmr_1: hex(report.rtmrs[1]),
      rtmr_2: hex(report.rtmrs[2]),
      rtmr_3: hex(report.rtmrs[3]),
      seam_attributes: hex(report.seamAttributes),
      tcb_svn: hex(report.teeTcbSvn),
      td_attributes: hex(report.tdAttributes),
      xfam: hex(report.xfam),
    }).toEqual(expected);
  },
);
