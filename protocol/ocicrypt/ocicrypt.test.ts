import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { vectorPath } from '../testing/vectors.ts';
import {
  createLayerDecryptor,
  createLayerEncryptor,
  encodeAnnotationPacket,
  encodeKeyUnwrapRequest,
  encodeKeyUnwrapResponse,
  encodeKeyWrapRequest,
  encodeKeyWrapResponse,
  encodePrivateLayerOptions,
  encodePublicLayerOptions,
  formatLayerMediaType,
  layerCipherName,
  type PrivateLayerOptions,
  parseAnnotationPacket,
  parseKeyUnwrapRequest,
  parseKeyUnwrapResponse,
  parseKeyWrapRequest,
  parseKeyWrapResponse,
  parseLayerMediaType,
  parsePrivateLayerOptions,
  parsePublicLayerOptions,
  readEncryptionAnnotations,
  unwrapPrivateOptions,
  wrapPrivateOptions,
  writeEncryptionAnnotations,
} from './index.ts';

/** The key that guest-components' sample provider has in its source. */
const sampleKey = Buffer.from('d99b7705b0ba7a168295b3a3367270b0dd9b371bf514ca8b9ba7f0a33711daea', 'hex');
const recordedPacket = vectorPath('image/sample_kbc_annotation.json');

const vectorKey = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
const vectorNonce = Buffer.from(Array.from({ length: 16 }, (_, index) => 0xf0 + index));
const vectorPlaintext = Buffer.from('this is some data');
const vectorCiphertext = Buffer.from('e668a4fe03fff3eb29068b3160560260ab', 'hex');
const vectorHmac = 'zQqs4OZ7GFvfrRDagJ7pvTY89YlGeBTTnb8GQScg5Jw=';
const vectorDigest = 'sha256:dff90087e2a95f1c093cf40e7be6ef4e998e21b4ea38d0b494ea2fdb2576fcfe';
const vectorOptions: PrivateLayerOptions = {
  symmetricKey: vectorKey,
  nonce: vectorNonce,
  plaintextDigest: vectorDigest,
};
const vectorPublic = { cipher: layerCipherName, hmac: Buffer.from(vectorHmac, 'base64') };

async function through(input: Uint8Array, transform: import('node:stream').Transform): Promise<Buffer> {
  return buffer(Readable.from([Buffer.from(input)]).compose(transform));
}

describe('annotation packet', () => {
  it('unwraps the published sample packet', (context) => {
    if (!existsSync(recordedPacket)) context.skip('the published vectors are not on this machine');
    const packet = parseAnnotationPacket(readFileSync(recordedPacket));
    expect(packet.keyId).toBe('kbs:///default/key/1');
    expect(packet.wrappedData).toHaveLength(209);
    expect(unwrapPrivateOptions(packet, sampleKey).toString()).toBe(
      '{"symkey":"1jL2jJV0Oyz2nmPkLtqulW6cKcpIUN5FpILcVnP5Uqs=","digest":"sha256:18be1897f9402f27c8c0eba7c86e0c00f5656db62961b5949d55f9565c42c6e7","cipheroptions":{"nonce":"r10F9oaCu+nWFXfod3l83g=="}}',
    );
  });

  it('wraps the cross-checked vector to the same bytes', () => {
    const encoded = encodePrivateLayerOptions(vectorOptions);
    expect(encoded.toString()).toBe(
      `{"symkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","digest":"${vectorDigest}","cipheroptions":{"nonce":"8PHy8/T19vf4+fr7/P3+/w=="}}`,
    );
    expect(wrapPrivateOptions(encoded, sampleKey, Buffer.alloc(12)).wrappedData.toString('base64')).toBe(
      '/3LyhluQ5hn61UcAfgunWJG3MH9d2bdt1sFfMUreAeTX/KuLrQEfep3P+KI4voUvTb3ckwxImQEY35buwGNUxdH5wrykBkLv91cS+jMPZ5JdP3a5gwxU0INjKNJYTHb5ZURDr0u/3MXWB0Qct5vCl7zxgOHPCZT7HtC20X4kOFpPPAxQt3lORr3gda9l2MzjzIkn4m7zVeIzpTUTrnKH23TfZeVeFgu6r81q4AQ11PrAUeva2j2IehjCB2NTv9/zlka8pyecEoa/Sh4Qe05+SEw=',
    );
  });

  it('encodes version 1 in the order of the known provider', () => {
    const text = encodeAnnotationPacket({
      keyId: 'kbs:///a/b/c',
      wrappedData: Buffer.from('w'),
      iv: Buffer.alloc(12),
      wrapType: 'A256GCM',
    }).toString();
    expect(text).toBe('{"kid":"kbs:///a/b/c","wrapped_data":"dw==","iv":"AAAAAAAAAAAAAAAA","wrap_type":"A256GCM"}');
    expect(parseAnnotationPacket(Buffer.from(text))).toMatchObject({ provider: 'kbs', annotations: {} });
  });

  it('reads version 2 and leaves other providers their own rules', () => {
    const packet = parseAnnotationPacket(
      Buffer.from(
        '{"version":"0.1.0","provider":"aliyun","kid":"k","wrapped_data":"dw==","provider_settings":{"r":"x"},"annotations":{}}',
      ),
    );
    expect(packet).toMatchObject({ provider: 'aliyun', keyId: 'k', providerSettings: { r: 'x' } });
  });

  const good = { kid: 'kbs:///a/b/c', wrapped_data: 'dw==', iv: 'AAAAAAAAAAAAAAAA', wrap_type: 'A256GCM' };
  it.each([
    ['no kid', { ...good, kid: undefined }],
    ['no data', { ...good, wrapped_data: undefined }],
    ['bad base64', { ...good, wrapped_data: 'd w' }],
    ['no iv', { ...good, iv: undefined }],
    ['short iv', { ...good, iv: 'AAAA' }],
    ['iv of another wrap type', { ...good, wrap_type: 'A256CTR' }],
    ['unknown wrap type', { ...good, wrap_type: 'none' }],
    ['unknown version', { ...good, version: '9.0.0' }],
  ])('refuses a packet with %s', (_name, document) => {
    expect(() => parseAnnotationPacket(Buffer.from(JSON.stringify(document)))).toThrow(
      expect.objectContaining({ code: 'IMG_DECRYPT_KEY' }),
    );
  });

  it('refuses a wrong key, a short key and every changed byte', () => {
    const { wrappedData, iv, wrapType } = wrapPrivateOptions(encodePrivateLayerOptions(vectorOptions), sampleKey);
    const packet = parseAnnotationPacket(encodeAnnotationPacket({ keyId: 'k', wrappedData, iv, wrapType }));
    const refused = expect.objectContaining({ code: 'IMG_DECRYPT_KEY' });
    expect(() => unwrapPrivateOptions(packet, randomBytes(32))).toThrow(refused);
    expect(() => unwrapPrivateOptions(packet, sampleKey.subarray(1))).toThrow(refused);
    for (let at = 0; at < wrappedData.length; at++) {
      const changed = Buffer.from(wrappedData);
      changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
      expect(() => unwrapPrivateOptions({ ...packet, wrappedData: changed }, sampleKey)).toThrow(refused);
    }
  });

  it('unwraps A256CTR, whose garbage under a wrong key the parser refuses', () => {
    const packet = {
      ...parseAnnotationPacket(Buffer.from(JSON.stringify(good))),
      wrapType: 'A256CTR' as const,
      iv: Buffer.alloc(16),
    };
    // CTR is its own inverse: what unwraps the plaintext gives the ciphertext.
    const wrappedData = unwrapPrivateOptions(
      { ...packet, wrappedData: encodePrivateLayerOptions(vectorOptions) },
      sampleKey,
    );
    expect(parsePrivateLayerOptions(unwrapPrivateOptions({ ...packet, wrappedData }, sampleKey))).toEqual(
      vectorOptions,
    );
    expect(() => parsePrivateLayerOptions(unwrapPrivateOptions({ ...packet, wrappedData }, randomBytes(32)))).toThrow(
      expect.objectContaining({ code: 'IMG_DECRYPT_KEY' }),
    );
  });
});

describe('layer options', () => {
  it.each([
    ['symkey', { symkey: 'AAAA' }],
    ['digest', { digest: 'sha256:00' }],
    ['digest', { digest: undefined }],
    ['cipheroptions', { cipheroptions: null }],
    ['nonce', { cipheroptions: { nonce: 'AAAA' } }],
  ])('refuses private options with a bad %s', (_name, change) => {
    const document = { ...JSON.parse(encodePrivateLayerOptions(vectorOptions).toString()), ...change };
    expect(() => parsePrivateLayerOptions(Buffer.from(JSON.stringify(document)))).toThrow(
      expect.objectContaining({ code: 'IMG_DECRYPT_KEY' }),
    );
  });

  it('shows nothing of a malformed secret document', () => {
    try {
      parsePrivateLayerOptions(Buffer.from('{"symkey":"c2VjcmV0",'));
      expect.unreachable();
    } catch (error) {
      expect(String(error)).not.toContain('c2VjcmV0');
    }
  });

  it('writes public options as skopeo does and reads them back', () => {
    const encoded = encodePublicLayerOptions(vectorPublic);
    expect(encoded.toString()).toBe(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"${vectorHmac}","cipheroptions":{}}`);
    expect(parsePublicLayerOptions(encoded)).toEqual(vectorPublic);
  });

  it.each([
    ['{"cipher":"AES_256_GCM","hmac":"AAAA"}'],
    ['{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":""}'],
    ['{"cipher":"","hmac":""}'],
    [`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"${vectorHmac}","cipheroptions":{"nonce":"AAAA"}}`],
  ])('refuses public options %s', (text) => {
    expect(() => parsePublicLayerOptions(Buffer.from(text))).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
  });

  it('keeps descriptor annotations through writing and reading', () => {
    const written = writeEncryptionAnnotations(vectorPublic, Buffer.from('packet'));
    expect(Object.keys(written)).toEqual([
      'org.opencontainers.image.enc.keys.provider.attestation-agent',
      'org.opencontainers.image.enc.pubopts',
    ]);
    const read = readEncryptionAnnotations(written);
    expect(read.publicOptions).toEqual(vectorPublic);
    expect(read.annotationPackets.map(String)).toEqual(['packet']);
  });

  it('refuses a layer without a key provider annotation', () => {
    const { 'org.opencontainers.image.enc.keys.provider.attestation-agent': _, ...rest } = writeEncryptionAnnotations(
      vectorPublic,
      Buffer.from('packet'),
    );
    expect(() => readEncryptionAnnotations({ ...rest, 'org.opencontainers.image.enc.keys.jwe': 'e30=' })).toThrow(
      'no suitable key found for decrypting layer key',
    );
    expect(() => readEncryptionAnnotations({})).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
  });
});

describe('layer cipher', () => {
  it('reproduces the cross-checked vector in both directions', async () => {
    const encryptor = createLayerEncryptor({ symmetricKey: vectorKey, nonce: vectorNonce });
    expect(() => encryptor.result()).toThrow('not yet encrypted');
    expect(await through(vectorPlaintext, encryptor.stream)).toEqual(vectorCiphertext);
    const result = encryptor.result();
    expect(Buffer.from(result.publicOptions.hmac).toString('base64')).toBe(vectorHmac);
    expect(result.privateOptions.plaintextDigest).toBe(vectorDigest);
    expect(result.ciphertextDigest).toBe(`sha256:${createHash('sha256').update(vectorCiphertext).digest('hex')}`);
    expect(result.size).toBe(17);
    expect(await through(vectorCiphertext, createLayerDecryptor(vectorOptions, vectorPublic))).toEqual(vectorPlaintext);
  });

  it('fails at the end for a changed ciphertext, HMAC, key or plaintext digest', async () => {
    const changed = Buffer.from(vectorCiphertext);
    changed.writeUInt8(changed.readUInt8(3) ^ 0x80, 3);
    const refused = expect.objectContaining({ code: 'IMG_DECRYPT_KEY' });
    await expect(through(changed, createLayerDecryptor(vectorOptions, vectorPublic))).rejects.toThrow(refused);
    const hmac = Buffer.alloc(32);
    await expect(
      through(vectorCiphertext, createLayerDecryptor(vectorOptions, { ...vectorPublic, hmac })),
    ).rejects.toThrow(refused);
    const symmetricKey = Buffer.alloc(32);
    await expect(
      through(vectorCiphertext, createLayerDecryptor({ ...vectorOptions, symmetricKey }, vectorPublic)),
    ).rejects.toThrow(refused);
    // The nonce is not under the HMAC: only the plaintext digest notices it.
    await expect(
      through(vectorCiphertext, createLayerDecryptor({ ...vectorOptions, nonce: Buffer.alloc(16) }, vectorPublic)),
    ).rejects.toThrow('not the one that was encrypted');
  });

  it('round-trips any bytes in any pieces', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 8 }), async (pieces) => {
        const encryptor = createLayerEncryptor();
        const source = Readable.from(pieces.filter((piece) => piece.length > 0).map((piece) => Buffer.from(piece)));
        const ciphertext = await buffer(source.compose(encryptor.stream));
        const { privateOptions, publicOptions } = encryptor.result();
        const plaintext = await through(ciphertext, createLayerDecryptor(privateOptions, publicOptions));
        expect(plaintext).toEqual(Buffer.concat(pieces));
      }),
      { numRuns: 40 },
    );
  });
});

describe('key provider messages', () => {
  const parameters = { 'attestation-agent': ['keyid=kbs:///default/image-key/1::sample=true'] };

  it('reads what skopeo sends', () => {
    const wrap = parseKeyWrapRequest(
      Buffer.from(
        '{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":["a2V5aWQ9a2JzOi8vL2RlZmF1bHQvaW1hZ2Uta2V5LzE6OnNhbXBsZT10cnVl"]},"DecryptConfig":{"Parameters":{}}},"optsdata":"b3B0cw=="},"keyunwrapparams":{"dc":null,"annotation":null}}',
      ),
    );
    expect(wrap).toEqual({ parameters, privateOptions: Buffer.from('opts') });
    const unwrap = parseKeyUnwrapRequest(
      Buffer.from(
        '{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":{"Parameters":{"attestation-agent":["bnVsbA=="]}},"annotation":"cGFja2V0"}}',
      ),
    );
    expect(unwrap).toEqual({
      parameters: { 'attestation-agent': ['null'] },
      annotation: Buffer.from('packet'),
    });
  });

  it.each(['{"Parameters":null}', '{}', 'null'])('reads ctd-decoder’s %s as no parameters', (dc) => {
    const message = `{"op":"keyunwrap","keywrapparams":{},"keyunwrapparams":{"dc":${dc},"annotation":"cGFja2V0"}}`;
    expect(parseKeyUnwrapRequest(Buffer.from(message)).parameters).toEqual({});
  });

  it('writes requests byte for byte as skopeo does', () => {
    expect(encodeKeyWrapRequest({ parameters, privateOptions: Buffer.from('opts') }).toString()).toBe(
      '{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":["a2V5aWQ9a2JzOi8vL2RlZmF1bHQvaW1hZ2Uta2V5LzE6OnNhbXBsZT10cnVl"]},"DecryptConfig":{"Parameters":{}}},"optsdata":"b3B0cw=="},"keyunwrapparams":{"dc":null,"annotation":null}}',
    );
    expect(
      encodeKeyUnwrapRequest({
        parameters: { 'attestation-agent': ['null'] },
        annotation: Buffer.from('packet'),
      }).toString(),
    ).toBe(
      '{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":{"Parameters":{"attestation-agent":["bnVsbA=="]}},"annotation":"cGFja2V0"}}',
    );
  });

  it('writes byte results as number arrays and reads those and base64', () => {
    expect(encodeKeyWrapResponse(Buffer.from([1, 255])).toString()).toBe('{"keywrapresults":{"annotation":[1,255]}}');
    expect(encodeKeyUnwrapResponse(Buffer.from([0, 7])).toString()).toBe('{"keyunwrapresults":{"optsdata":[0,7]}}');
    expect(parseKeyWrapResponse(Buffer.from('{"keywrapresults":{"annotation":[1,255]}}'))).toEqual(
      Buffer.from([1, 255]),
    );
    expect(parseKeyUnwrapResponse(Buffer.from('{"keyunwrapresults":{"optsdata":"AAc="}}'))).toEqual(
      Buffer.from([0, 7]),
    );
  });

  it.each(['[256]', '[-1]', '[1.5]', '["1"]', 'null', '{}', '"?"'])('refuses %s as bytes', (value) => {
    expect(() => parseKeyUnwrapResponse(Buffer.from(`{"keyunwrapresults":{"optsdata":${value}}}`))).toThrow(
      expect.objectContaining({ code: 'REQUEST_FORMAT' }),
    );
  });

  it.each(['{"op":"keyunwrap","keyunwrapparams":{}}', '{"op":"keyunwrap"}', '[]'])('refuses request %s', (text) => {
    expect(() => parseKeyUnwrapRequest(Buffer.from(text))).toThrow(expect.objectContaining({ code: 'REQUEST_FORMAT' }));
  });
});

describe('layer media types', () => {
  const oci = 'application/vnd.oci.image.layer.v1.tar';
  it.each(['', '+gzip', '+zstd', '+encrypted', '+gzip+encrypted', '+zstd+encrypted'])('keeps OCI tar%s', (suffix) => {
    expect(formatLayerMediaType(parseLayerMediaType(oci + suffix))).toBe(oci + suffix);
    const foreign = `application/vnd.oci.image.layer.nondistributable.v1.tar${suffix}`;
    expect(formatLayerMediaType(parseLayerMediaType(foreign))).toBe(foreign);
  });

  it.each([
    ['application/vnd.docker.image.rootfs.diff.tar.gzip', `${oci}+gzip`],
    ['application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted', `${oci}+gzip+encrypted`],
    ['application/vnd.docker.image.rootfs.diff.tar.zstd', `${oci}+zstd`],
    ['application/vnd.docker.image.rootfs.diff.tar', oci],
  ])('reads %s', (alias, name) => {
    expect(formatLayerMediaType(parseLayerMediaType(alias))).toBe(name);
  });

  it.each(['application/vnd.oci.image.layer.v1.tar+bzip2', `${oci}+encrypted+gzip`, '', 'constructor', `${oci}; a=b`])(
    'refuses %j',
    (mediaType) => {
      expect(() => parseLayerMediaType(mediaType)).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
    },
  );
});
