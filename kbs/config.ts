import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type AdminRole, adminRoles, defaultAdminAudience, defaultAdminIssuer } from '@sealpod/kbs-client/token';
import { SealpodError } from '@sealpod/protocol/errors';
import { type JsonValue, parseJson } from '@sealpod/protocol/json';
import { type AttestationServiceConfig, readAttestationService } from './attestation-config.ts';
import { ConfigReader } from './config-reader.ts';

/** A public key that administrator tokens may be signed with. */
export interface AdminKeyConfig {
  /** PEM (SPKI), Ed25519 or EC P-256. */
  readonly publicKeyFile: string;
  /** The highest role a token of this key may claim; default `owner`. */
  readonly maxRole: AdminRole;
  /** Overrides the issuer and audience of `admin` for tokens of this key. */
  readonly issuer: string;
  readonly audience: string;
}

/** Tokens a second that refill a bucket, and how many it holds. */
export interface RateLimitConfig {
  readonly perSecond: number;
  readonly burst: number;
}

export interface LimitsConfig {
  /** Requests of one client address (IPv6: of its /64). */
  readonly perAddress: RateLimitConfig;
  /** Requests of all clients together. */
  readonly global: RateLimitConfig;
  /** Largest stored resource, in bytes. */
  readonly maxResourceBytes: number;
  /** Versions of a resource that are kept, the current one included. */
  readonly keptVersions: number;
  /** Open connections; more are closed at once. */
  readonly maxConnections: number;
  /** Milliseconds in which a request head must be complete. */
  readonly headTimeoutMs: number;
  /** Milliseconds in which a whole request must be received. */
  readonly requestTimeoutMs: number;
  /** How long a session may take from challenge to the last resource, in seconds. */
  readonly sessionSeconds: number;
  /** The database may not grow beyond so many bytes; 0 = no limit. */
  readonly maxDatabaseBytes: number;
}

export interface KbsConfig {
  readonly listen: { readonly host: string; readonly port: number };
  /** Created with mode 0700 where it is missing. */
  readonly dataDirectory: string;
  /** Serve plain HTTP. Only for tests, or behind a proxy on the same machine that terminates TLS. */
  readonly insecureHttp: boolean;
  /** Names and addresses in the certificate that is made at the first start. */
  readonly tlsHosts: readonly string[];
  /** PEM files; where absent, a self-signed certificate is made and kept in the data directory. */
  readonly tls?: { readonly certificate: string; readonly privateKey: string };
  readonly admin: { readonly keys: readonly AdminKeyConfig[] };
  readonly attestationService: AttestationServiceConfig;
  readonly limits: LimitsConfig;
  readonly logLevel: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'silent';
}

const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'silent'] as const;

/** 4 MiB, the limit of one ttrpc message in the guest, less room for the rest of that message. */
const largestResource = 4 * 1024 * 1024 - 4096;

function readRate(reader: ConfigReader, name: string, defaults: RateLimitConfig): RateLimitConfig {
  const rate = reader.optionalObject(name);
  if (rate === undefined) return defaults;
  const config = { perSecond: rate.integer('perSecond', { minimum: 1 }), burst: rate.integer('burst', { minimum: 1 }) };
  rate.end();
  return config;
}

function readLimits(reader: ConfigReader | undefined): LimitsConfig {
  const limits = reader ?? new ConfigReader({}, 'limits');
  const config = {
    perAddress: readRate(limits, 'perAddress', { perSecond: 200, burst: 400 }),
    global: readRate(limits, 'global', { perSecond: 5000, burst: 10_000 }),
    maxResourceBytes: limits.integer('maxResourceBytes', {
      default: largestResource,
      minimum: 1,
      maximum: largestResource,
    }),
    keptVersions: limits.integer('keptVersions', { default: 10, minimum: 1, maximum: 1000 }),
    maxConnections: limits.integer('maxConnections', { default: 4096, minimum: 1 }),
    headTimeoutMs: limits.integer('headTimeoutMs', { default: 10_000, minimum: 100 }),
    requestTimeoutMs: limits.integer('requestTimeoutMs', { default: 30_000, minimum: 100 }),
    sessionSeconds: limits.integer('sessionSeconds', { default: 300, minimum: 1, maximum: 3600 }),
    maxDatabaseBytes: limits.integer('maxDatabaseBytes', { default: 0, minimum: 0 }),
  };
  limits.end();
  return config;
}

function readAdmin(admin: ConfigReader): KbsConfig['admin'] {
  const issuer = admin.text('issuer', defaultAdminIssuer);
  const audience = admin.text('audience', defaultAdminAudience);
  const keys = admin.objects('keys').map((key) => {
    const config = {
      publicKeyFile: key.path('publicKeyFile'),
      maxRole: key.oneOf('maxRole', adminRoles, 'owner'),
      issuer: key.text('issuer', issuer),
      audience: key.text('audience', audience),
    };
    key.end();
    return config;
  });
  admin.end();
  if (!keys.some((key) => key.maxRole === 'owner')) {
    throw new SealpodError('USAGE', 'admin.keys names no owner key', {
      expected: 'the public key of at least one owner: nobody becomes owner by being first',
      actual: `${keys.length} keys, none of an owner`,
      fix: 'make a key pair with `openssl genpkey -algorithm ed25519`, and name its public key in admin.keys',
    });
  }
  return { keys };
}

function readTls(tls: ConfigReader | undefined): KbsConfig['tls'] {
  if (tls === undefined) return undefined;
  const config = { certificate: tls.path('certificate'), privateKey: tls.path('privateKey') };
  tls.end();
  return config;
}

/**
 * Reads a configuration (the JSON value of the file), with defaults filled in. Paths are taken relative to `directory`.
 * Throws `USAGE` naming the member that is missing, unknown or of the wrong kind.
 */
export function parseKbsConfig(value: JsonValue, directory: string): KbsConfig {
  const root = new ConfigReader(value, '', directory);
  const listen = root.object('listen');
  const tls = readTls(root.optionalObject('tls'));
  const host = listen.text('host', '127.0.0.1');
  const config = {
    listen: { host, port: listen.integer('port', { minimum: 0, maximum: 65_535 }) },
    dataDirectory: root.path('dataDirectory'),
    insecureHttp: root.flag('insecureHttp', false),
    tlsHosts: root.texts('tlsHosts', ['localhost', '127.0.0.1', '::1']),
    ...(tls === undefined ? {} : { tls }),
    admin: readAdmin(root.object('admin')),
    attestationService: readAttestationService(root.object('attestationService')),
    limits: readLimits(root.optionalObject('limits')),
    logLevel: root.oneOf('logLevel', logLevels, 'info'),
  };
  listen.end();
  root.end();
  return config;
}

/** Reads a configuration file; see `parseKbsConfig`. */
export function loadKbsConfig(file: string): KbsConfig {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SealpodError('USAGE', 'the configuration file cannot be read', { source: file, cause });
  }
  const value = parseJson(text, { what: 'configuration', code: 'USAGE' });
  return parseKbsConfig(value, resolve(file, '..'));
}
