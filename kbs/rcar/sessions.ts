import { createHash, randomBytes } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { jsonOf, type Operations, type Storage } from '@sealpod/storage';

const namespace = 'kbs/session';

/** A session from challenge to the end of its time. Fixed to one TEE and one nonce. */
export interface Session {
  /** `challenged`: the nonce may be answered once; `attested`: it was, with success; `spent`: it was, without. */
  readonly state: 'challenged' | 'attested' | 'spent';
  readonly tee: string;
  readonly nonce: string;
  readonly correlationId: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly token?: string;
}

/** A session, its place in the storage, and the version it was read in. */
export interface FoundSession {
  readonly key: string;
  readonly version: number;
  readonly session: Session;
}

/** A new session id: 32 hexadecimal digits, 128 random bits. */
export function newSessionId(): string {
  return randomBytes(16).toString('hex');
}

/** Sessions are stored under the hash of their id: who reads the database cannot take one over. */
export function sessionKey(id: string): string {
  return createHash('sha256').update(id).digest('hex');
}

function isSession(value: unknown): value is Session {
  if (typeof value !== 'object' || value === null) return false;
  const { state, tee, nonce, correlationId, expiresAt } = value as Record<string, unknown>;
  return (
    (state === 'challenged' || state === 'attested' || state === 'spent') &&
    typeof tee === 'string' &&
    typeof nonce === 'string' &&
    typeof correlationId === 'string' &&
    typeof expiresAt === 'number'
  );
}

/** The value of the session cookie; the first one where there are several, as upstream. Undefined where malformed. */
export function sessionIdOf(cookieHeader: string | undefined): string | undefined {
  const value = /(?:^|;)\s*kbs-session-id=([^;]*)/.exec(cookieHeader ?? '')?.[1]?.trim();
  return value !== undefined && /^[0-9a-f]{32}$/.test(value) ? value : undefined;
}

/** The cookie that carries a session id; `secure` where it may only travel over TLS. */
export function sessionCookie(id: string, expiresAt: number, secure: boolean): string {
  const expires = new Date(expiresAt).toUTCString();
  return `kbs-session-id=${id}; Expires=${expires}; HttpOnly; SameSite=Strict${secure ? '; Secure' : ''}`;
}

/** Finds a session that has not expired. */
export async function findSession(storage: Storage, id: string | undefined): Promise<FoundSession | undefined> {
  if (id === undefined) return undefined;
  const key = sessionKey(id);
  const entry = await storage.get(namespace, key);
  if (entry === undefined) return undefined;
  const session = jsonOf(entry);
  if (!isSession(session)) throw new SealpodError('STORAGE', 'a stored session is damaged');
  return { key, version: entry.version, session };
}

/** Stores a new session. */
export async function createSession(transaction: Operations, id: string, session: Session): Promise<void> {
  const options = { expectedVersion: 0, expiresAt: session.expiresAt };
  await transaction.put(namespace, sessionKey(id), JSON.stringify(session), options);
}

/**
 * Spends the nonce of a session, for good or ill. Throws `SESSION_UNKNOWN` where it was spent already, in whichever
 * process: of all who answer one challenge exactly one gets a decision.
 */
export async function spendSession(
  transaction: Operations,
  found: FoundSession,
  token: string | undefined,
): Promise<void> {
  const { key, version, session } = found;
  const spent: Session =
    token === undefined ? { ...session, state: 'spent' } : { ...session, state: 'attested', token };
  try {
    const options = { expectedVersion: version, expiresAt: session.expiresAt };
    await transaction.put(namespace, key, JSON.stringify(spent), options);
  } catch (cause) {
    if (!(cause instanceof SealpodError) || cause.code !== 'STORAGE_CONFLICT') throw cause;
    throw new SealpodError('SESSION_UNKNOWN', 'the nonce of this session was spent already', { cause });
  }
}
