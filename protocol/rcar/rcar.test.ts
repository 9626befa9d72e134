import fc from 'fast-check';
import { FlattenedEncrypt, flattenedDecrypt, importJWK } from 'jose';
import { describe, expect, it } from 'vitest';
import { SealpodError } from '../errors.ts';
import {
  decryptResponse,
  encryptResponse,
  generateTeeKey,
  negotiatedHashAlgorithm,
  parseAttestation,
  parseErrorInformation,
  parseRequest,
  parseTeePubKey,
  type Response,
  regularise,
  runtimeDataDigest,
  runtimeDataText,
  serializeErrorInformation,
  teeClassOf,
  teeNames,
} from './index.ts';
import { concatKdf } from './response.ts';

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof SealpodError) return error.code;
    throw error;
  }
  return 'none';
};

const teePubKey = {
  kty: 'EC',
  crv: 'P-256',
  alg: 'ECDH-ES+A256KW',
  x: 'QT3_slJmispaOwnAo6hxebXGLRuiveFuRCLpS4j4S4k',
  y: 'jcDn4N4nRBQ-a7_D3qjqtb6hwOAXh_ve1wvibPSi1G0',
} as const;
const nonce = Buffer.alloc(32).toString('base64');

describe('runtime-data digest', () => {
  it('is what the cross-checked vectors have', () => {
    expect(runtimeDataDigest({ nonce, teePubKey }).toString('hex')).toBe(
      '980d9dda7b170b08fb58684dc255d6c08151b96981aff3813ace263bc7397685dab32c8afb9bf8823cc758360255edbc',
    );
    expect(runtimeDataDigest({ nonce, teePubKey, additionalEvidence: '' }, 'sha384').toString('hex')).toBe(
      '78667d7267d7571d8491acba151edb74e93bfb659efab9d702ca217d055245937f31423f40e925d4a5c03884d98c164e',
    );
  });
  it('covers the typed key only: unknown members do not change it, each known one does', () => {
    const parsed = parseTeePubKey({ ...teePubKey, kid: 'x', use: 'enc' });
    expect(runtimeDataText({ nonce, teePubKey: parsed })).toBe(runtimeDataText({ nonce, teePubKey }));
    for (const member of ['crv', 'alg', 'x', 'y'] as const) {
      const altered = parseTeePubKey({ ...teePubKey, [member]: `${teePubKey[member]}A` });
      expect(runtimeDataDigest({ nonce, teePubKey: altered }).equals(runtimeDataDigest({ nonce, teePubKey }))).toBe(
        false,
      );
    }
  });
  it('regularises: cut or zero-padded at the end', () => {
    expect(regularise(Buffer.from('010203', 'hex'), 2).toString('hex')).toBe('0102');
    expect(regularise(Buffer.from('010203', 'hex'), 5).toString('hex')).toBe('0102030000');
  });
  it('negotiates as upstream: SHA-384 unless the challenge selects another', () => {
    expect(negotiatedHashAlgorithm('')).toBe('sha384');
    expect(negotiatedHashAlgorithm({ tpm: {} })).toBe('sha384');
    expect(negotiatedHashAlgorithm({ 'selected-hash-algorithm': 'SHA512' })).toBe('sha512');
    expect(codeOf(() => negotiatedHashAlgorithm({ 'selected-hash-algorithm': 'md5' }))).toBe('UNSUPPORTED');
  });
});

describe('messages', () => {
  const request = { version: '0.4.0', tee: 'sample', 'extra-params': '' };
  const attestation = {
    'runtime-data': { nonce, 'tee-pubkey': teePubKey },
    'tee-evidence': { primary_evidence: { svn: '1' }, additional_evidence: '' },
  };
  it('requires every member', () => {
    for (const name of Object.keys(request)) {
      expect(codeOf(() => parseRequest(JSON.stringify({ ...request, [name]: undefined })))).toBe('REQUEST_FORMAT');
    }
    expect(parseRequest(JSON.stringify({ ...request, 'extra-params': null }))).toMatchObject({ extraParams: null });
    for (const broken of [
      {},
      { ...attestation, 'runtime-data': { nonce } },
      { ...attestation, 'runtime-data': { nonce: 1, 'tee-pubkey': teePubKey } },
      { ...attestation, 'tee-evidence': { primary_evidence: {} } },
      { ...attestation, 'tee-evidence': { additional_evidence: '' } },
      { ...attestation, 'tee-evidence': { primary_evidence: {}, additional_evidence: {} } },
      { ...attestation, 'init-data': 'text' },
      { ...attestation, 'init-data': { format: 'toml' } },
      { ...attestation, 'runtime-data': { nonce, 'tee-pubkey': { kty: 'oct', k: 'x' } } },
    ]) {
      expect(codeOf(() => parseAttestation(JSON.stringify(broken)))).toBe('REQUEST_FORMAT');
    }
    expect(parseAttestation(JSON.stringify({ ...attestation, 'init-data': null }))).not.toHaveProperty('initData');
  });
  it('G-23: refuses a second nonce in one attestation', () => {
    const doubled = JSON.stringify(attestation).replace('"nonce"', '"nonce":"AAAA","nonce"');
    expect(codeOf(() => parseAttestation(doubled))).toBe('REQUEST_FORMAT');
  });
  it('limits the size of an attestation', () => {
    const large = JSON.stringify({
      ...attestation,
      'init-data': { format: 'toml', body: 'x'.repeat(2 * 1024 * 1024) },
    });
    expect(codeOf(() => parseAttestation(large))).toBe('REQUEST_TOO_LARGE');
  });
  it('keeps type and detail of upstream errors and adds code and correlation id', () => {
    const error = {
      type: 'https://github.com/confidential-containers/kbs/errors/PolicyDeny',
      detail: 'Access denied by policy',
    };
    expect(serializeErrorInformation(error)).toBe(JSON.stringify(error));
    const ours = { ...error, code: 'POLICY_DENY', correlationId: 'c1' } as const;
    expect(parseErrorInformation(serializeErrorInformation(ours))).toEqual(ours);
    expect(parseErrorInformation(JSON.stringify({ ...error, code: 'NOT_A_CODE' }))).toEqual(error);
  });
  it('knows each TEE name of upstream and its class', () => {
    // The DPU has two names.
    expect(teeNames).toHaveLength(16);
    expect(teeClassOf('tpm')).toBe('cpu');
    expect(teeClassOf('nvidia')).toBe('gpu');
  });
});

describe('response JWE', () => {
  const plaintext = Buffer.from('golden secret é\n');

  it.each(['EC-P256', 'EC-P521', 'RSA-OAEP-256'] as const)(
    '%s: ours opens ours, jose opens ours, ours opens jose',
    async (algorithm) => {
      const { privateKey, teePubKey: key } = await generateTeeKey(algorithm);
      const response = encryptResponse(key, plaintext);
      expect(decryptResponse(privateKey, response).equals(plaintext)).toBe(true);
      const opened = await flattenedDecrypt(response, privateKey);
      expect(Buffer.from(opened.plaintext).equals(plaintext)).toBe(true);
      const theirs = await new FlattenedEncrypt(plaintext)
        .setProtectedHeader({ alg: key.alg, enc: 'A256GCM' })
        .encrypt(await importJWK({ ...key }, key.alg));
      expect(decryptResponse(privateKey, theirs as Response).equals(plaintext)).toBe(true);
    },
  );

  it('writes the header members in the order that upstream serialises them again', async () => {
    const { teePubKey: key } = await generateTeeKey('EC-P256');
    const header = Buffer.from(encryptResponse(key, plaintext).protected, 'base64url').toString();
    expect(header).toMatch(
      /^\{"alg":"ECDH-ES\+A256KW","enc":"A256GCM","epk":\{"crv":"P-256","kty":"EC","x":"[\w-]{43}","y":"[\w-]{43}"\}\}$/,
    );
    const rsa = await generateTeeKey('RSA-OAEP-256');
    expect(Buffer.from(encryptResponse(rsa.teePubKey, plaintext).protected, 'base64url').toString()).toBe(
      '{"alg":"RSA-OAEP-256","enc":"A256GCM"}',
    );
  });

  it('derives the key-wrapping key of the cross-checked vector', () => {
    expect(concatKdf(Buffer.alloc(32, 1)).toString('hex')).toBe(
      '9ef57177b3ca41231c4fb70924571c4ee531046d10592852f4fc8446b5861f73',
    );
  });

  it('G-25: a response for one session does not open with the key of another', async () => {
    const [one, other] = [await generateTeeKey(), await generateTeeKey()];
    const response = encryptResponse(one.teePubKey, plaintext);
    expect(codeOf(() => decryptResponse(other.privateKey, response))).toBe('REQUEST_FORMAT');
  });

  it('refuses a response of which any bit was changed', async () => {
    const { privateKey, teePubKey: key } = await generateTeeKey();
    const response = encryptResponse(key, plaintext);
    const members = ['protected', 'encrypted_key', 'iv', 'ciphertext', 'tag'] as const;
    fc.assert(
      fc.property(fc.constantFrom(...members), fc.nat(), fc.integer({ min: 0, max: 7 }), (member, position, bit) => {
        const bytes = Buffer.from(response[member], 'base64url');
        const at = position % bytes.length;
        bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
        const altered = { ...response, [member]: bytes.toString('base64url') };
        expect(codeOf(() => decryptResponse(privateKey, altered))).toBe('REQUEST_FORMAT');
      }),
    );
  });

  it('refuses keys it must not encrypt to', async () => {
    const rsa = await generateTeeKey('RSA-OAEP-256');
    expect(codeOf(() => encryptResponse({ ...rsa.teePubKey, alg: 'RSA1_5' }, plaintext))).toBe('UNSUPPORTED');
    expect(codeOf(() => encryptResponse({ ...teePubKey, crv: 'P-384' }, plaintext))).toBe('UNSUPPORTED');
    expect(codeOf(() => encryptResponse({ ...teePubKey, alg: 'ECDH-ES' }, plaintext))).toBe('UNSUPPORTED');
    expect(codeOf(() => encryptResponse({ kty: 'AKP', alg: 'ML-KEM-768+A192KW', pub: 'AA' }, plaintext))).toBe(
      'UNSUPPORTED',
    );
    expect(codeOf(() => encryptResponse({ ...teePubKey, y: teePubKey.x }, plaintext))).toBe('REQUEST_FORMAT');
    expect(codeOf(() => encryptResponse({ ...teePubKey, x: 'AA' }, plaintext))).toBe('REQUEST_FORMAT');
    expect(
      codeOf(() =>
        encryptResponse(
          { kty: 'RSA', alg: 'RSA-OAEP-256', n: Buffer.alloc(128, 0xff).toString('base64url'), e: 'AQAB' },
          plaintext,
        ),
      ),
    ).toBe('REQUEST_FORMAT');
  });

  it('refuses other algorithms before it touches the key', async () => {
    const { privateKey, teePubKey: key } = await generateTeeKey();
    const response = encryptResponse(key, plaintext);
    for (const header of [
      { alg: 'dir', enc: 'A256GCM' },
      { alg: 'RSA-OAEP-256', enc: 'A256GCM' },
      { alg: 'ECDH-ES+A256KW', enc: 'A128CBC-HS256' },
      {},
    ]) {
      const altered = { ...response, protected: Buffer.from(JSON.stringify(header)).toString('base64url') };
      expect(codeOf(() => decryptResponse(privateKey, altered))).toBe('REQUEST_FORMAT');
    }
  });
});
