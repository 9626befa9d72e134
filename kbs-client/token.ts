import { createPrivateKey, type KeyObject, randomUUID } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { SignJWT } from 'jose';

/** The roles of administrators. There is no order among them but that `owner` may do everything. */
export const adminRoles = ['owner', 'operator', 'auditor'] as const;

export type AdminRole = (typeof adminRoles)[number];

/** Whether `text` names a role. */
export function isAdminRole(text: string): text is AdminRole {
  return adminRoles.some((role) => role === text);
}

/** Default issuer and audience of administrator tokens. */
export const defaultAdminIssuer = 'sealpod';
export const defaultAdminAudience = 'sealpod-kbs';

/** No administrator token is accepted that lives longer, in seconds: 24 hours. */
export const longestAdminTokenSeconds = 24 * 60 * 60;

export interface AdminTokenOptions {
  /** Ed25519 or EC P-256; a key object or PEM (PKCS#8). */
  readonly privateKey: KeyObject | string;
  readonly role: AdminRole;
  /** Who acts; written to the record of decisions. */
  readonly subject: string;
  /** At most 24 hours. */
  readonly ttlSeconds: number;
  readonly issuer?: string;
  readonly audience?: string;
  /** When the token is made, in milliseconds since the epoch; default: now. */
  readonly now?: number;
}

/** The one algorithm that goes with a key. Throws `USAGE` for keys that administrator tokens are not signed with. */
export function adminAlgorithmOf(key: KeyObject): 'EdDSA' | 'ES256' {
  if (key.asymmetricKeyType === 'ed25519') return 'EdDSA';
  if (key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return 'ES256';
  throw new SealpodError('USAGE', 'administrator tokens are not signed with such a key', {
    expected: 'Ed25519 or EC P-256',
    actual: `${key.asymmetricKeyType ?? 'secret'} ${key.asymmetricKeyDetails?.namedCurve ?? ''}`.trim(),
  });
}

/** Makes a bearer token for the administration of a key broker. Throws `USAGE` for a wrong key, role or lifetime. */
export async function signAdminToken(options: AdminTokenOptions): Promise<string> {
  const { role, subject, ttlSeconds } = options;
  if (!isAdminRole(role)) throw new SealpodError('USAGE', `there is no role ${String(role)}`);
  if (subject === '') throw new SealpodError('USAGE', 'an administrator token needs a subject');
  if (!Number.isInteger(ttlSeconds) || ttlSeconds < 1 || ttlSeconds > longestAdminTokenSeconds) {
    throw new SealpodError('USAGE', 'the lifetime of the administrator token is not allowed', {
      expected: `1 to ${longestAdminTokenSeconds} seconds`,
      actual: String(ttlSeconds),
    });
  }
  const key = typeof options.privateKey === 'string' ? createPrivateKey(options.privateKey) : options.privateKey;
  const issuedAt = Math.floor((options.now ?? Date.now()) / 1000);
  return new SignJWT({ role })
    .setProtectedHeader({ typ: 'JWT', alg: adminAlgorithmOf(key) })
    .setSubject(subject)
    .setIssuer(options.issuer ?? defaultAdminIssuer)
    .setAudience(options.audience ?? defaultAdminAudience)
    .setJti(randomUUID())
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + ttlSeconds)
    .sign(key);
}
