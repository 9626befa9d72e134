import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type AdminRole, adminAlgorithmOf, isAdminRole, longestAdminTokenSeconds } from '@sealpod/kbs-client/token';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, parseJson } from '@sealpod/protocol/json';
import { compactVerify } from 'jose';
import type { AdminKeyConfig } from '../config.ts';
import { type AdminAction, mayAct, mayClaim } from './roles.ts';

/** Who acts, as far as the token says and its signature proves. */
export interface Administrator {
  readonly subject: string;
  readonly role: AdminRole;
  /** SHA-256 (hex) of the public key that signed the token: unlike the subject, nobody can choose it. */
  readonly keyId: string;
  readonly tokenId?: string;
}

interface AdminKey extends AdminKeyConfig {
  readonly publicKey: KeyObject;
  readonly keyId: string;
  readonly algorithm: 'EdDSA' | 'ES256';
}

/** Tolerated difference of clocks, in seconds. */
const clockTolerance = 5;
const longestToken = 4096;
const cacheEntries = 256;

/** Why a token is refused: upstream's text for it, which clients and tests look for. */
const refusals = {
  header: 'Failed to parse HTTP Auth Bearer header',
  token: 'Admin access denied: Cannot verify token with any of the issuers',
  role: 'Admin access denied: Failed to parse claims from token: AdminAccessDenied { reason: "Missing required `role` claim in JWT" }',
} as const;

function loadKey(config: AdminKeyConfig): AdminKey {
  let publicKey: KeyObject;
  try {
    const pem = readFileSync(config.publicKeyFile, 'utf8');
    if (pem.includes('PRIVATE KEY')) throw new Error('the file holds a private key');
    publicKey = createPublicKey(pem);
  } catch (cause) {
    throw new SealpodError('USAGE', 'an administrator public key cannot be read', {
      expected: 'PEM, Ed25519 or EC P-256 public key',
      source: config.publicKeyFile,
      cause,
    });
  }
  const keyId = createHash('sha256')
    .update(publicKey.export({ format: 'der', type: 'spki' }))
    .digest('hex');
  return { ...config, publicKey, keyId, algorithm: adminAlgorithmOf(publicKey) };
}

function hasAudience(claim: unknown, audience: string): boolean {
  return claim === audience || (Array.isArray(claim) && claim.includes(audience));
}

/** Whether issuer, audience and dates are right. Dates must be there, and the lifetime at most 24 hours. */
function areClaimsValid(claims: JsonObject, key: AdminKey, now: number): boolean {
  const { iss, aud, exp, iat, nbf } = claims;
  if (iss !== key.issuer || !hasAudience(aud, key.audience)) return false;
  if (typeof exp !== 'number' || typeof iat !== 'number' || !Number.isInteger(exp) || !Number.isInteger(iat))
    return false;
  if (exp <= now - clockTolerance || iat > now + clockTolerance) return false;
  if (exp - iat > longestAdminTokenSeconds) return false;
  return nbf === undefined || (typeof nbf === 'number' && nbf <= now + clockTolerance);
}

function administratorOf(claims: JsonObject, key: AdminKey): Administrator {
  const { role, sub, jti } = claims;
  if (typeof role !== 'string') throw new SealpodError('ADMIN_TOKEN', refusals.role);
  if (!isAdminRole(role) || !mayClaim(key.maxRole, role)) throw new SealpodError('ADMIN_ROLE', role);
  const subject = typeof sub === 'string' && sub !== '' ? sub : '(no subject)';
  return { subject, role, keyId: key.keyId, ...(typeof jti === 'string' ? { tokenId: jti } : {}) };
}

/** The administrators of one key broker: tokens signed by keys that the configuration pins, and by no other. */
export class Authenticator {
  readonly #keys: readonly AdminKey[];
  readonly #now: () => number;
  /** Hash of token → who it is, until it expires. */
  readonly #verified = new Map<string, { readonly administrator: Administrator; readonly expires: number }>();

  /** Throws `USAGE` where a key cannot be read or is of another kind. */
  constructor(keys: readonly AdminKeyConfig[], now: () => number = Date.now) {
    this.#keys = keys.map(loadKey);
    this.#now = now;
  }

  /**
   * Who acts, if they may. Throws `ADMIN_TOKEN` (who is not known) or `ADMIN_ROLE` (known, and not allowed); the
   * message is upstream's text.
   */
  async authorize(authorization: string | undefined, action: AdminAction, path: string): Promise<Administrator> {
    const bearer = /^Bearer +(\S+) *$/.exec(authorization ?? '')?.[1];
    if (bearer === undefined) throw new SealpodError('ADMIN_TOKEN', refusals.header);
    const deny = (role: string) =>
      new SealpodError('ADMIN_ROLE', `Admin access denied: Role ${role} not allowed for path ${path}`);
    let administrator: Administrator;
    try {
      administrator = await this.#authenticate(bearer);
    } catch (thrown) {
      if (thrown instanceof SealpodError && thrown.code === 'ADMIN_ROLE') throw deny(thrown.message);
      throw thrown;
    }
    if (!mayAct(administrator.role, action)) throw deny(administrator.role);
    return administrator;
  }

  async #authenticate(token: string): Promise<Administrator> {
    if (token.length > longestToken) throw new SealpodError('ADMIN_TOKEN', refusals.token);
    const now = Math.floor(this.#now() / 1000);
    const hash = createHash('sha256').update(token).digest('base64');
    const known = this.#verified.get(hash);
    if (known !== undefined && known.expires > now - clockTolerance) return known.administrator;
    for (const key of this.#keys) {
      const claims = await verify(token, key);
      if (claims === undefined || !areClaimsValid(claims, key, now)) continue;
      const administrator = administratorOf(claims, key);
      if (this.#verified.size >= cacheEntries) this.#verified.clear();
      this.#verified.set(hash, { administrator, expires: Number(claims['exp']) });
      return administrator;
    }
    throw new SealpodError('ADMIN_TOKEN', refusals.token);
  }
}

/** The claims of a token that this key signed; the algorithm is the key's, never the header's choice. */
async function verify(token: string, key: AdminKey): Promise<JsonObject | undefined> {
  try {
    const header = token.split('.', 1)[0] ?? '';
    parseJson(Buffer.from(header, 'base64url'), { what: 'token header', maxSize: longestToken });
    const { payload } = await compactVerify(token, key.publicKey, { algorithms: [key.algorithm] });
    return asJsonObject(parseJson(payload, { what: 'token payload', maxSize: longestToken }), 'token payload');
  } catch {
    // Why it does not verify is of no use to whoever presents it; the next key is tried.
    return undefined;
  }
}
