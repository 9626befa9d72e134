import { createHash, createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { type EarClaims, parseEarClaims, teePubKeyOfEar } from '@sealpod/protocol/ear';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import type { TeePubKey } from '@sealpod/protocol/rcar';
import { compactVerify } from 'jose';

/** A token whose signature and dates were verified. What it claims is for the resource policy to judge. */
export interface VerifiedToken {
  readonly claims: EarClaims;
  /** The payload as it was signed: the input of resource policies. */
  readonly payload: JsonObject;
  readonly teePubKey: TeePubKey;
  readonly correlationId: string | undefined;
  /** SHA-256 of the token, base64url. */
  readonly hash: string;
}

interface TrustedKey {
  readonly kid: string | undefined;
  readonly x: string;
  readonly y: string;
  readonly key: KeyObject;
}

/** Tolerated difference of clocks between replicas, in seconds. */
const clockTolerance = 5;
/** The whole request head is limited to 128 KiB; a token is smaller. */
const longestToken = 128 * 1024;
const cacheEntries = 4096;
/** A key that is not known may have been published meanwhile; not more often than this the keys are read again. */
const reloadIntervalMs = 10_000;

const invalid = (message: string, cause?: unknown) => new SealpodError('TOKEN_INVALID', message, { cause });

function trustedKeyOf(jwk: JsonObject): TrustedKey {
  const { kty, crv, x, y, kid } = jwk;
  if (kty !== 'EC' || crv !== 'P-256' || typeof x !== 'string' || typeof y !== 'string') {
    throw invalid('the attestation service publishes a key that is not EC P-256');
  }
  const key = createPublicKey({ key: { kty, crv, x, y } satisfies JsonWebKey, format: 'jwk' });
  return { kid: typeof kid === 'string' ? kid : undefined, x, y, key };
}

function headerOf(token: string): JsonObject {
  const [header, , , ...more] = token.split('.');
  if (header === undefined || more.length > 0) throw invalid('the token is no compact JWS');
  const bytes = Buffer.from(header, 'base64url');
  return asJsonObject(
    parseJson(bytes, { what: 'token header', maxSize: longestToken, code: 'TOKEN_INVALID' }),
    'token header',
  );
}

function isNumericDate(value: JsonValue | undefined): value is number {
  return typeof value === 'number' && Number.isInteger(value);
}

/**
 * Verifies attestation tokens against the keys of this key broker's attestation service, and against nothing else: keys
 * in a token's header only choose among the trusted ones. Verified tokens are remembered by hash until they expire.
 */
export class TokenVerifier {
  readonly #jwks: () => Promise<{ readonly keys: readonly JsonObject[] }>;
  readonly #now: () => number;
  readonly #verified = new Map<string, { readonly token: VerifiedToken; readonly expires: number }>();
  #keys: readonly TrustedKey[] = [];
  #loadedAt = Number.NEGATIVE_INFINITY;

  constructor(jwks: () => Promise<{ readonly keys: readonly JsonObject[] }>, now: () => number = Date.now) {
    this.#jwks = jwks;
    this.#now = now;
  }

  /** Throws `TOKEN_INVALID`; why is for the log, not for the guest. */
  async verify(token: string): Promise<VerifiedToken> {
    if (token.length > longestToken) throw invalid('the token is too long');
    const hash = createHash('sha256').update(token).digest('base64url');
    const now = Math.floor(this.#now() / 1000);
    const known = this.#verified.get(hash);
    if (known !== undefined) {
      if (known.expires > now - clockTolerance) return known.token;
      this.#verified.delete(hash);
    }
    const payload = await this.#verifiedPayload(token);
    const verified = this.#check(payload, now, hash);
    const oldest = this.#verified.keys().next();
    if (this.#verified.size >= cacheEntries && oldest.done !== true) this.#verified.delete(oldest.value);
    this.#verified.set(hash, { token: verified, expires: verified.claims.exp });
    return verified;
  }

  async #verifiedPayload(token: string): Promise<JsonObject> {
    const header = headerOf(token);
    const trusted = await this.#trustedKey(header);
    try {
      const { payload } = await compactVerify(token, trusted.key, { algorithms: ['ES256'] });
      const limits = { what: 'token payload', maxSize: longestToken, code: 'TOKEN_INVALID' } as const;
      return asJsonObject(parseJson(payload, limits), 'token payload', 'TOKEN_INVALID');
    } catch (cause) {
      throw invalid('the token does not verify', cause);
    }
  }

  #check(payload: JsonObject, now: number, hash: string): VerifiedToken {
    const { exp, nbf, jti } = payload;
    if (!isNumericDate(exp) || exp <= now - clockTolerance) throw invalid('the token has expired');
    if (nbf !== undefined && (!isNumericDate(nbf) || nbf > now + clockTolerance))
      throw invalid('the token is not valid yet');
    const claims = parseEarClaims(payload);
    if (claims.iat > now + clockTolerance) throw invalid('the token is not valid yet');
    const teePubKey = teePubKeyOfEar(claims);
    if (teePubKey === undefined) throw invalid('the token holds no TEE key');
    return { claims, payload, teePubKey, correlationId: typeof jti === 'string' ? jti : undefined, hash };
  }

  /** The trusted key that a header names, by `kid` or by the coordinates of its `jwk`; both must agree where both are there. */
  async #trustedKey(header: JsonObject): Promise<TrustedKey> {
    const found = this.#find(header);
    if (found !== undefined) return found;
    const now = this.#now();
    if (now - this.#loadedAt >= reloadIntervalMs) {
      this.#keys = (await this.#jwks()).keys.map(trustedKeyOf);
      this.#loadedAt = now;
    }
    const key = this.#find(header);
    if (key === undefined) throw invalid('the token is not signed by this attestation service');
    return key;
  }

  #find(header: JsonObject): TrustedKey | undefined {
    const { kid, jwk } = header;
    if (kid === undefined && jwk === undefined) return undefined;
    const coordinates = jwk === undefined ? undefined : asJsonObject(jwk, 'jwk', 'TOKEN_INVALID');
    return this.#keys.find(
      (key) =>
        (kid === undefined || (key.kid !== undefined && key.kid === kid)) &&
        (coordinates === undefined || (coordinates['x'] === key.x && coordinates['y'] === key.y)),
    );
  }
}
