import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { vectorPath } from '../testing/vectors.ts';
import {
  Algorithm,
  AttestType,
  attestMagic,
  encodePcrSelection,
  encodePublicArea,
  encodeSignature,
  makeCredential,
  objectName,
  parseAttest,
  parsePcrSelection,
  parsePublicArea,
  parseQuoteInfo,
  parseSignature,
  parseTpmEvidence,
  publicAreaKey,
  TpmReader,
  verifySignature,
} from './index.ts';
import { SoftwareTpm } from './testing/software-tpm.ts';

const vector = vectorPath('tpm/tpm_evidence.json');
const tpm = new SoftwareTpm();

const bytes = (options?: fc.IntArrayConstraints): fc.Arbitrary<Buffer> =>
  fc.uint8Array(options).map((value) => Buffer.from(value));
const uint16 = fc.nat({ max: 0xffff });

describe('structures', () => {
  it('public areas round-trip', () => {
    const area = fc.record(
      {
        nameAlgorithm: uint16,
        attributes: fc.nat({ max: 0xffff_ffff }),
        authPolicy: bytes(),
        symmetric: fc.record({ algorithm: fc.constant(Algorithm.aes), keyBits: uint16, mode: uint16 }),
        scheme: fc.record({ algorithm: fc.constantFrom(Algorithm.ecDsa, Algorithm.rsaSsa), hash: uint16 }),
        key: fc.oneof(
          fc.record({ kind: fc.constant('ecc' as const), curve: uint16, x: bytes(), y: bytes() }),
          fc.record({
            kind: fc.constant('rsa' as const),
            keyBits: uint16,
            exponent: fc.nat({ max: 0xffff_ffff }),
            modulus: bytes(),
          }),
        ),
      },
      { requiredKeys: ['nameAlgorithm', 'attributes', 'authPolicy', 'key'] },
    );
    fc.assert(
      fc.property(area, (value) => {
        expect(parsePublicArea(encodePublicArea(value))).toEqual(value);
      }),
    );
  });

  it('signatures and PCR selections round-trip', () => {
    const signature = fc.oneof(
      fc.record({ scheme: fc.constant('ecdsa' as const), hash: uint16, r: bytes(), s: bytes() }),
      fc.record({ scheme: fc.constantFrom('rsassa' as const, 'rsapss' as const), hash: uint16, signature: bytes() }),
    );
    fc.assert(
      fc.property(signature, (value) => {
        expect(parseSignature(encodeSignature(value))).toEqual(value);
      }),
    );
    const registers = fc.uniqueArray(fc.nat({ max: 23 })).map((list) => list.sort((left, right) => left - right));
    const selection = fc.array(fc.record({ hash: uint16, registers }), { maxLength: 4 });
    fc.assert(
      fc.property(selection, (value) => {
        expect(parsePcrSelection(new TpmReader(encodePcrSelection(value)))).toEqual(value);
      }),
    );
    expect(() => encodePcrSelection([{ hash: 11, registers: [24] }])).toThrow(RangeError);
  });

  it('a quote parses to what was quoted', () => {
    const { message, signature } = tpm.quote(Buffer.from('nonce'), { registers: [0, 8, 23] });
    const attest = parseAttest(message);
    expect(attest).toMatchObject({
      magic: attestMagic,
      type: AttestType.quote,
      clock: { time: 12_345n, resetCount: 7, restartCount: 1, safe: true },
    });
    expect(attest.extraData.toString()).toBe('nonce');
    expect(parseQuoteInfo(attest.attested).selection).toEqual([{ hash: Algorithm.sha256, registers: [0, 8, 23] }]);
    const key = publicAreaKey(parsePublicArea(tpm.publicArea));
    expect(key.equals(createPublicKey(tpm.attestationKey))).toBe(true);
    expect(verifySignature(key, parseSignature(signature), message)).toBe(true);
  });

  it('nothing but EV_FORMAT comes from truncated, extended or arbitrary bytes', () => {
    const { message, signature } = tpm.quote(Buffer.alloc(32));
    const parsers: [string, Buffer, (value: Uint8Array) => unknown][] = [
      ['public area', tpm.publicArea, parsePublicArea],
      ['signature', signature, parseSignature],
      ['attest', message, (value) => parseQuoteInfo(parseAttest(value).attested)],
    ];
    for (const [name, whole, parse] of parsers) {
      expect(() => parse(whole)).not.toThrow();
      for (let length = 0; length < whole.length; length++) {
        expect(() => parse(whole.subarray(0, length)), `${name} ${length}`).toThrow('malformed');
      }
      expect(() => parse(Buffer.concat([whole, Buffer.alloc(1)])), name).toThrow('malformed');
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 120 }), (value) => {
          try {
            parse(value);
          } catch (error) {
            expect(error).toMatchObject({ code: 'EV_FORMAT' });
          }
        }),
      );
    }
  });
});

describe('signatures', () => {
  it.each(['ecc', 'rsa'] as const)(
    '%s: verifies, and not with another key, message, scheme or weak hash',
    (attestationKey) => {
      const one = new SoftwareTpm({ endorsementKey: tpm.endorsementKey, attestationKey });
      const other = new SoftwareTpm({ endorsementKey: tpm.endorsementKey, attestationKey });
      const { message, signature } = one.quote(Buffer.alloc(32));
      const parsed = parseSignature(signature);
      const key = createPublicKey(one.attestationKey);
      expect(verifySignature(key, parsed, message)).toBe(true);
      expect(verifySignature(createPublicKey(other.attestationKey), parsed, message)).toBe(false);
      expect(verifySignature(key, parsed, Buffer.concat([message, Buffer.alloc(1)]))).toBe(false);
      expect(verifySignature(key, { ...parsed, hash: Algorithm.sha1 }, message)).toBe(false);
      expect(verifySignature(key, { ...parsed, hash: Algorithm.sm3 }, message)).toBe(false);
      expect(
        verifySignature(key, { scheme: 'rsapss', hash: Algorithm.sha256, signature: Buffer.alloc(256) }, message),
      ).toBe(false);
      expect(
        verifySignature(
          key,
          { scheme: 'ecdsa', hash: Algorithm.sha256, r: Buffer.alloc(33), s: Buffer.alloc(32) },
          message,
        ),
      ).toBe(false);
    },
  );
});

describe('credential activation', () => {
  const endorsementKeys = {
    'RSA 2048': tpm.endorsementKey,
    'EC P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
    'EC P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey,
  };
  it.each(Object.entries(endorsementKeys))(
    '%s: only the TPM of the EK, and only for the named object, releases the secret',
    (_, endorsementKey) => {
      const one = new SoftwareTpm({ endorsementKey });
      const secret = randomBytes(32);
      const made = makeCredential(createPublicKey(endorsementKey), objectName(one.publicArea), secret);
      expect(one.activate(made.credentialBlob, made.encryptedSecret).equals(secret)).toBe(true);
      const otherObject = new SoftwareTpm({ endorsementKey });
      expect(() => otherObject.activate(made.credentialBlob, made.encryptedSecret)).toThrow('TPM_RC_INTEGRITY');
    },
  );
  it('refuses endorsement keys of other types', () => {
    const { publicKey } = generateKeyPairSync('ed25519');
    expect(() => makeCredential(publicKey, Buffer.alloc(34), Buffer.alloc(32))).toThrow('unsupported type');
  });
});

describe('evidence', () => {
  const { message, signature } = tpm.quote(Buffer.alloc(32));
  const evidence = {
    ak_public: tpm.attestationPublicKey.toString('base64'),
    tpm_quote: {
      signature: signature.toString('base64'),
      message: message.toString('base64'),
      pcrs: tpm.pcrs.map((value) => value.toString('hex')),
    },
    ak_public_area: tpm.publicArea.toString('base64'),
    activated_secret: Buffer.alloc(32).toString('base64'),
    kernel_command_line: 'quiet',
  };
  it('decodes', () => {
    const parsed = parseTpmEvidence(evidence);
    expect(parsed.quote.message.equals(message)).toBe(true);
    expect(parsed.quote.pcrs).toHaveLength(24);
    expect(parsed).toMatchObject({ kernelCommandLine: 'quiet' });
    expect(parsed).not.toHaveProperty('eventLog');
  });
  it('refuses wrong shapes, sizes and unknown members', () => {
    const quote = evidence.tpm_quote;
    const refused: [object, string][] = [
      [{ ...evidence, ak_public: 1 }, 'EV_FORMAT'],
      [{ ...evidence, extra: '' }, 'EV_FORMAT'],
      [{ ...evidence, tpm_quote: { ...quote, extra: '' } }, 'EV_FORMAT'],
      [{ ...evidence, tpm_quote: { ...quote, pcrs: quote.pcrs.slice(1) } }, 'EV_FORMAT'],
      [{ ...evidence, tpm_quote: { ...quote, pcrs: [...quote.pcrs.slice(1), 'abcd'] } }, 'EV_FORMAT'],
      [{ ...evidence, tpm_quote: { ...quote, message: 'not base64' } }, 'EV_FORMAT'],
      [{ ...evidence, event_log: Buffer.alloc(600 * 1024).toString('base64') }, 'REQUEST_TOO_LARGE'],
      [{ ...evidence, kernel_command_line: 'x'.repeat(5000) }, 'REQUEST_TOO_LARGE'],
      [{}, 'EV_FORMAT'],
    ];
    for (const [shape, code] of refused) {
      let thrown: unknown;
      try {
        parseTpmEvidence(JSON.parse(JSON.stringify(shape)));
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toMatchObject({ code });
    }
  });
  it("reads upstream's evidence, whose signature verifies", (context) => {
    if (!existsSync(vector)) context.skip(`no vector at ${vector}`);
    const parsed = parseTpmEvidence(JSON.parse(readFileSync(vector, 'utf8')));
    const key = createPublicKey({ key: parsed.akPublic, format: 'der', type: 'spki' });
    expect(verifySignature(key, parseSignature(parsed.quote.signature), parsed.quote.message)).toBe(true);
    const attest = parseAttest(parsed.quote.message);
    expect(attest).toMatchObject({ magic: attestMagic, type: AttestType.quote });
    expect(parseQuoteInfo(attest.attested).selection).toEqual([
      { hash: Algorithm.sha256, registers: Array.from({ length: 24 }, (_, index) => index) },
    ]);
  });
});
