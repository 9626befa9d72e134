import { createHash, timingSafeEqual } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';

/** Where a front listens, and who may administrate through it. */
export interface FrontOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  /** PEM. Required for any address but a loopback one. */
  readonly tls?: FrontTls;
  /** What an administrator sends as `authorization: Bearer …`. At least 16 characters. */
  readonly adminSecret?: string;
  /** Lets anyone who reaches the socket set policies and reference values, as upstream. Loopback addresses only. */
  readonly openAdministration?: boolean;
}

export interface FrontTls {
  readonly certificate: string;
  readonly key: string;
  /** Certificate authorities of clients: then every caller needs a certificate, and is an administrator. */
  readonly clientAuthorities?: string;
}

/** The policy that appraises where none is named; to choose another is for administrators. */
export const defaultPolicy = 'default';

/** @throws SealpodError USAGE for a configuration that would be open to the network */
export function checkExposure({ address, tls, adminSecret, openAdministration }: FrontOptions): void {
  const loopback = /^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$/.test(address);
  if (!loopback && tls === undefined) {
    throw new SealpodError('USAGE', 'without TLS the service listens at a loopback address only', { actual: address });
  }
  if (openAdministration === true && !loopback) {
    throw new SealpodError('USAGE', 'open administration is for loopback addresses only', { actual: address });
  }
  if (adminSecret !== undefined && adminSecret.length < 16) {
    throw new SealpodError('USAGE', 'the admin secret is too short', { expected: 'at least 16 characters' });
  }
}

/**
 * Whether a caller is an administrator, by what it sent as `authorization`. With client authorities configured, the
 * handshake has already refused every caller without a certificate.
 */
export function isAdministrator(
  authorization: unknown,
  { tls, adminSecret, openAdministration }: FrontOptions,
): boolean {
  if (tls?.clientAuthorities !== undefined || openAdministration === true) return true;
  if (adminSecret === undefined || typeof authorization !== 'string') return false;
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(authorization), digest(`Bearer ${adminSecret}`));
}

/** @throws SealpodError ADMIN_TOKEN for a caller who is none */
export function requireAdministrator(authorization: unknown, options: FrontOptions): void {
  if (isAdministrator(authorization, options)) return;
  throw new SealpodError('ADMIN_TOKEN', 'only an administrator may do this', {
    fix: 'configure adminSecret or client certificates',
  });
}
