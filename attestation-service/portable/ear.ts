import { type EarClaims, parseEarClaims } from '@sealpod/protocol/ear';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, parseJson } from '@sealpod/protocol/json';
import { passed, type Verdict } from '@sealpod/protocol/verdict';
import { compactVerify, decodeProtectedHeader, type JWK } from 'jose';
import { allOf, check } from '../verifiers/check.ts';

/** What an EAR token is held against. */
export interface EarExpectations {
  /** The trusted keys, as an attestation service publishes them. Keys in the token's header are never trusted. */
  readonly jwks: { readonly keys: readonly JsonObject[] };
  /** `iss` has to be this. */
  readonly issuer?: string;
  /** `aud` has to be this, or name it. */
  readonly audience?: string;
  /** Default: now. */
  readonly now?: Date;
}

export interface EarVerification {
  readonly verdict: Verdict;
  /** Present only where every check passed. `ear.status` of the submodules is the caller's to judge. */
  readonly claims?: EarClaims;
}

/** Tolerated difference of clocks, in seconds. */
const clockTolerance = 5;
const longestToken = 128 * 1024;
const maxKeys = 64;
const code = 'TOKEN_INVALID';

/**
 * Verifies an EAR token (compact JWS, ES256): signature by a trusted key, dates, issuer and audience where expected.
 * Never throws: what cannot be read is a verdict TOKEN_INVALID. The status in the token is not judged.
 */
export async function verifyEarToken(token: string, expectations: EarExpectations): Promise<EarVerification> {
  const name = 'ear token';
  try {
    if (typeof token !== 'string' || token.length > longestToken) {
      throw new SealpodError(code, 'the token is no text, or too long', { expected: `at most ${longestToken}` });
    }
    const payload = await signedPayload(token, expectations.jwks.keys);
    const claims = parseEarClaims(payload);
    const verdict = allOf(name, [{ check: 'signature', code: 'OK' }, ...checkMembers(payload, expectations)]);
    return passed(verdict) ? { verdict, claims } : { verdict };
  } catch (thrown) {
    const error = asSealpodError(thrown, code);
    return { verdict: { check: name, code: error.code, actual: error.message, ...error.detail } };
  }
}

async function signedPayload(token: string, keys: readonly JsonObject[]): Promise<JsonObject> {
  const header = decodeProtectedHeader(token);
  if (header.alg !== 'ES256') {
    throw new SealpodError(code, 'the token is signed otherwise', { expected: 'ES256', actual: String(header.alg) });
  }
  const candidates = keys.slice(0, maxKeys).filter((key) => names(header, key));
  for (const key of candidates) {
    const result = await verifiedBy(token, key);
    if (result !== undefined) return asJsonObject(parseJson(result, limits), limits.what, code);
  }
  throw new SealpodError(code, 'no trusted key verifies the token', {
    expected: 'a signature by a key of the key set',
    actual: `${candidates.length} of ${keys.length} keys are of the kind and name of its header`,
  });
}

const limits = { what: 'token payload', maxSize: longestToken, code } as const;

/** A header's key id only chooses among the trusted keys; one without an id may be any of them. */
function names({ kid }: { readonly kid?: string }, key: JsonObject): boolean {
  const usable = key['kty'] === 'EC' && key['crv'] === 'P-256' && (key['use'] ?? 'sig') === 'sig';
  return usable && (kid === undefined || key['kid'] === undefined || key['kid'] === kid);
}

async function verifiedBy(token: string, jwk: JsonObject): Promise<Uint8Array | undefined> {
  const { kty, crv, x, y } = jwk;
  try {
    return (await compactVerify(token, { kty, crv, x, y } as JWK, { algorithms: ['ES256'] })).payload;
  } catch {
    return undefined; // Another key may have made it; where none has, the caller says so.
  }
}

function checkMembers(payload: JsonObject, { issuer, audience, now = new Date() }: EarExpectations): Verdict[] {
  const { exp, iat, nbf, iss, aud } = payload;
  const seconds = now.getTime() / 1000;
  const begins = nbf === undefined ? [iat] : [iat, nbf];
  const audiences = Array.isArray(aud) ? aud : [aud];
  const shown = (value: unknown): string => JSON.stringify(value) ?? 'none';
  return [
    check('expiry', typeof exp === 'number' && exp > seconds - clockTolerance, code, {
      expected: `after ${now.toISOString()}`,
      actual: shown(exp),
    }),
    check(
      'begin',
      begins.every((date) => typeof date === 'number' && date <= seconds + clockTolerance),
      code,
      {
        expected: `not after ${now.toISOString()}`,
        actual: shown(begins),
      },
    ),
    ...(issuer === undefined ? [] : [check('issuer', iss === issuer, code, { expected: issuer, actual: shown(iss) })]),
    ...(audience === undefined
      ? []
      : [check('audience', audiences.includes(audience), code, { expected: audience, actual: shown(aud) })]),
  ];
}
