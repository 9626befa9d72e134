import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import { describe, expect, it } from 'vitest';
import { earPayload, type FakeSigner, newSigner, signPayload } from '../testing/fake-attestation-service.ts';
import { TokenVerifier } from './token-verifier.ts';

const teePubKey = {
  kty: 'EC',
  crv: 'P-256',
  alg: 'ECDH-ES+A256KW',
  x: 'QT3_slJmispaOwnAo6hxebXGLRuiveFuRCLpS4j4S4k',
  y: 'jcDn4N4nRBQ-a7_D3qjqtb6hwOAXh_ve1wvibPSi1G0',
};
const payload = earPayload(teePubKey, { jti: 'c' });
const signer = newSigner();
const stranger = newSigner();

function verifierOf(...signers: FakeSigner[]): TokenVerifier {
  return new TokenVerifier(async () => ({ keys: signers.map(({ jwk }) => jwk) }));
}

/** A JWS whose header and payload are exactly these texts. */
function rawToken(header: string, body: string, key: KeyObject = signer.privateKey): string {
  const input = `${Buffer.from(header).toString('base64url')}.${Buffer.from(body).toString('base64url')}`;
  const signature = sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
  return `${input}.${signature.toString('base64url')}`;
}

const header = (members: object = {}) => JSON.stringify({ typ: 'JWT', alg: 'ES256', jwk: signer.jwk, ...members });
const refused = { code: 'TOKEN_INVALID' };

describe('token verifier', () => {
  it('accepts a token of its own attestation service and finds the TEE key in it', async () => {
    const token = await verifierOf(signer).verify(await signPayload(signer, payload));
    expect(token.teePubKey).toEqual(teePubKey);
    expect(token.correlationId).toBe('c');
    expect(token.claims.submods['cpu0']?.['ear.status']).toBe('affirming');
    expect(token.payload).toEqual(payload);
  });

  it('G-23: refuses tokens of any other key, whatever their header says', async () => {
    const verifier = verifierOf(signer);
    for (const members of [
      {},
      { jwk: signer.jwk },
      { kid: 'a' },
      { jwk: undefined },
      { jwk: stranger.jwk, kid: 'a' },
    ]) {
      await expect(verifier.verify(await signPayload(stranger, payload, members))).rejects.toMatchObject(refused);
    }
  });

  it('G-23: does not mix up keys by kid', async () => {
    const [first, second] = [newSigner('first'), newSigner('second')];
    const verifier = verifierOf(first, second);
    const good = await signPayload(second, payload, { kid: 'second' });
    expect((await verifier.verify(good)).correlationId).toBe('c');
    // The kid of one trusted key beside the coordinates, or the signature, of another.
    for (const token of [
      await signPayload(second, payload, { kid: 'first' }),
      await signPayload(second, payload, { kid: 'first', jwk: undefined }),
      await signPayload(second, payload, { kid: 'second', jwk: first.jwk }),
      await signPayload(second, payload, { kid: 'third' }),
      await signPayload(second, payload, { kid: ['second'] }),
      await signPayload(second, payload, { jwk: undefined }),
    ]) {
      await expect(verifier.verify(token)).rejects.toMatchObject(refused);
    }
  });

  it('G-23: refuses every algorithm but ES256', async () => {
    const verifier = verifierOf(signer);
    const body = JSON.stringify(payload);
    const unsigned = (alg: string) =>
      `${Buffer.from(header({ alg })).toString('base64url')}.${Buffer.from(body).toString('base64url')}`;
    const publicPem = createPublicKey(signer.privateKey).export({ type: 'spki', format: 'pem' });
    const hmac = createHmac('sha256', publicPem).update(unsigned('HS256')).digest('base64url');
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    const rs256 = sign('sha256', Buffer.from(unsigned('RS256')), rsa).toString('base64url');
    for (const token of [
      `${unsigned('none')}.`,
      `${unsigned('None')}.`,
      `${unsigned('HS256')}.${hmac}`,
      `${unsigned('RS256')}.${rs256}`,
      rawToken(header({ alg: 'ES384' }), body),
      rawToken(header({ alg: undefined }), body),
      rawToken(header({ crit: ['exp'] }), body),
      rawToken(header({ b64: false, crit: ['b64'] }), body),
    ]) {
      await expect(verifier.verify(token)).rejects.toMatchObject(refused);
    }
  });

  it('G-23: refuses a name that stands twice, in header and payload', async () => {
    const verifier = verifierOf(signer);
    const body = JSON.stringify(payload);
    const twice = [
      rawToken(header().replace('"alg"', '"alg":"none","alg"'), body),
      rawToken(header(), body.replace('"exp"', '"exp":9999999999,"exp"')),
      rawToken(header(), body.replace('"ear.status"', '"ear.status":"affirming","ear.status"')),
      rawToken(header(), body.replace('"submods"', '"\\u0073ubmods":{},"submods"')),
    ];
    for (const token of twice) await expect(verifier.verify(token)).rejects.toMatchObject(refused);
    expect((await verifier.verify(rawToken(header(), body))).correlationId).toBe('c');
  });

  it.each<[string, JsonObject]>([
    ['no exp', { exp: null }],
    ['a text as exp', { exp: '9999999999' }],
    ['a fraction as exp', { exp: 9_999_999_999.5 }],
    ['exp in the past', { exp: Math.floor(Date.now() / 1000) - 6 }],
    ['nbf in the future', { nbf: Math.floor(Date.now() / 1000) + 60 }],
    ['a text as nbf', { nbf: '0' }],
    ['iat in the future', { iat: Math.floor(Date.now() / 1000) + 60 }],
    ['no submodules', { submods: [] }],
    ['a status that does not exist', { submods: { cpu0: { 'ear.status': 'great' } } }],
    ['no TEE key', earPayload(null)],
    ['a malformed TEE key', earPayload({ kty: 'EC' })],
  ])('refuses %s', async (_name, changes) => {
    await expect(
      verifierOf(signer).verify(await signPayload(signer, { ...payload, ...changes })),
    ).rejects.toMatchObject(changes['submods'] === undefined ? refused : { name: 'SealpodError' });
  });

  it.each(['', 'x', 'a.b', 'a.b.c', 'a.b.c.d', '.'.repeat(1000), 'é.b.c', `${'A'.repeat(140_000)}.b.c`])(
    'refuses text that is no token: %#',
    async (text) => {
      await expect(verifierOf(signer).verify(text)).rejects.toMatchObject({ name: 'SealpodError' });
    },
  );

  it('refuses a token of which any character was changed', async () => {
    const verifier = verifierOf(signer);
    const token = await signPayload(signer, payload);
    await verifier.verify(token);
    for (let at = 0; at < token.length; at += 7) {
      const altered = token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1);
      await expect(verifier.verify(altered)).rejects.toMatchObject({ name: 'SealpodError' });
    }
  });

  it('forgets a verified token when it expires', async () => {
    let now = Date.now();
    const verifier = new TokenVerifier(
      async () => ({ keys: [signer.jwk] }),
      () => now,
    );
    const token = await signPayload(signer, payload);
    await verifier.verify(token);
    now += 320_000;
    await expect(verifier.verify(token)).rejects.toMatchObject(refused);
  });

  it('learns a new key of its attestation service, and does not ask at every unknown one', async () => {
    let now = Date.now();
    let asked = 0;
    const keys = [signer.jwk];
    const verifier = new TokenVerifier(
      async () => {
        asked += 1;
        return { keys };
      },
      () => now,
    );
    const token = await signPayload(stranger, payload);
    for (let tries = 0; tries < 5; tries += 1) await expect(verifier.verify(token)).rejects.toMatchObject(refused);
    expect(asked).toBe(1);
    keys.push(stranger.jwk);
    now += 10_000;
    expect((await verifier.verify(token)).correlationId).toBe('c');
    expect(asked).toBe(2);
  });
});
