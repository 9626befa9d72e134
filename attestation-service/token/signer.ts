import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import type { EarClaims } from '@sealpod/protocol/ear';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { calculateJwkThumbprint } from 'jose';

/** The public half of a token key: upstream's members in upstream's order. */
interface TokenJwk extends Record<string, string> {
  readonly alg: 'ES256';
  readonly kty: 'EC';
  readonly crv: 'P-256';
  readonly x: string;
  readonly y: string;
}

/**
 * Signs attestation tokens with ES256. The header carries upstream's `jwk` and, for verifiers that look keys up, `kid`:
 * the key's RFC 7638 thumbprint, as in the published key set.
 */
export class TokenSigner {
  readonly #key: KeyObject;
  readonly #jwk: TokenJwk;
  /** RFC 7638 thumbprint. */
  readonly keyId: string;
  readonly #header: string;

  private constructor(key: KeyObject, jwk: TokenJwk, keyId: string) {
    this.#key = key;
    this.#jwk = jwk;
    this.keyId = keyId;
    const header = { typ: 'JWT', alg: 'ES256', jwk, kid: keyId };
    this.#header = Buffer.from(JSON.stringify(header)).toString('base64url');
  }

  /** @param pkcs8 DER of a P-256 key. @throws SealpodError STORAGE where it is another */
  static async open(pkcs8: Uint8Array): Promise<TokenSigner> {
    const key = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' });
    const { x, y } = createPublicKey(key).export({ format: 'jwk' });
    if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1' || x === undefined || y === undefined) {
      throw new SealpodError('STORAGE', 'the token key is not an EC P-256 key');
    }
    const jwk: TokenJwk = { alg: 'ES256', kty: 'EC', crv: 'P-256', x, y };
    return new TokenSigner(key, jwk, await calculateJwkThumbprint(jwk));
  }

  /** A compact JWS (RFC 7515). The header never changes, so it is not made anew as a library would for each token. */
  sign(claims: EarClaims): string {
    const signed = `${this.#header}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`;
    const signature = sign('sha256', Buffer.from(signed), { key: this.#key, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${signature.toString('base64url')}`;
  }

  /** The public half, as a member of a JWK Set. */
  publicJwk(): JsonObject {
    return { ...this.#jwk, kid: this.keyId, use: 'sig' };
  }
}

/** A new token key, PKCS#8 DER. */
export async function newTokenKey(): Promise<Uint8Array> {
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
  return privateKey.export({ format: 'der', type: 'pkcs8' });
}
