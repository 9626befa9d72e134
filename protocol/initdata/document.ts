import { createHash } from 'node:crypto';
import { parse, type TomlTableWithoutBigInt } from 'smol-toml';
import { SealpodError } from '../errors.ts';
import { findSecret } from './secrets.ts';

/** Digest algorithms an initdata document may name (the Kata shim knows these three). */
export const initdataAlgorithms = ['sha256', 'sha384', 'sha512'] as const;
export type InitdataAlgorithm = (typeof initdataAlgorithms)[number];

/** The one document version there is. */
export const initdataVersion = '0.1.0';

/** Largest accepted document, in bytes of TOML. */
export const maxInitdataBytes = 4 << 20;
const maxEntries = 64;

/**
 * The file names that the guest knows. Further names are kept and ignored: an owner may carry own files.
 */
export const initdataFiles = { attestationAgent: 'aa.toml', dataHub: 'cdh.toml', agentPolicy: 'policy.rego' } as const;

/** A parsed initdata document: configuration that the owner gives to the guest. It is public; it never holds a secret. */
export interface Initdata {
  readonly version: string;
  readonly algorithm: InitdataAlgorithm;
  /** File name → text. */
  readonly data: Readonly<Record<string, string>>;
}

/** @internal A refusal of a document, always with one code. */
export function schemaError(message: string, cause?: unknown): SealpodError {
  return new SealpodError('INITDATA_SCHEMA', `initdata: ${message}`, cause === undefined ? {} : { cause });
}

/** @internal Parses TOML text into a table, with bounded depth; integers beyond 2^53 are refused by the parser. */
export function parseToml(text: string, what: string): TomlTableWithoutBigInt {
  try {
    return parse(text, { maxDepth: 32, unsafeKeyBehaviour: 'throw' });
  } catch (cause) {
    throw schemaError(
      `${what} is not TOML: ${cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : ''}`,
      cause,
    );
  }
}

/**
 * Parses an initdata document (TOML: `version`, `algorithm`, `[data]` of strings).
 *
 * Accepts the algorithm names `sha256|sha384|sha512` and their hyphenated forms. Not verified here: that the document is
 * the one that was measured; see {@link initdataDigest}.
 *
 * @throws SealpodError INITDATA_SCHEMA
 */
export function parseInitdata(toml: string): Initdata {
  if (Buffer.byteLength(toml) > maxInitdataBytes) throw schemaError(`the document exceeds ${maxInitdataBytes} bytes`);
  const table = parseToml(toml, 'the document');
  if (table.version !== initdataVersion) {
    throw schemaError(`version must be "${initdataVersion}", not ${JSON.stringify(table.version)}`);
  }
  const { data } = table;
  if (!isTable(data)) throw schemaError('a table [data] is required');
  const entries = Object.entries(data);
  if (entries.length > maxEntries) throw schemaError(`[data] has more than ${maxEntries} entries`);
  const files: Record<string, string> = {};
  for (const [name, value] of entries) {
    if (typeof value !== 'string') throw schemaError(`data.${JSON.stringify(name)} must be a string`);
    const secret = findSecret(value);
    if (secret !== undefined) {
      throw schemaError(
        `data.${JSON.stringify(name)} holds ${secret}; initdata is public, keep secrets in the key broker`,
      );
    }
    files[name] = value;
  }
  return Object.freeze({
    version: initdataVersion,
    algorithm: parseAlgorithm(table.algorithm),
    data: Object.freeze(files),
  });
}

function parseAlgorithm(value: unknown): InitdataAlgorithm {
  const name = typeof value === 'string' ? value.toLowerCase().replace(/^sha-/, 'sha') : undefined;
  const found = initdataAlgorithms.find((algorithm) => algorithm === name);
  if (found === undefined) {
    throw schemaError(`algorithm must be one of ${initdataAlgorithms.join(', ')}, not ${JSON.stringify(value)}`);
  }
  return found;
}

/** @internal */
export function isTable(value: unknown): value is TomlTableWithoutBigInt {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/**
 * Digest of the document: over the raw bytes as delivered, never over a re-serialised form.
 *
 * @returns raw digest: 32, 48 or 64 bytes
 */
export function initdataDigest(bytes: Uint8Array | string, algorithm: InitdataAlgorithm): Buffer {
  return createHash(algorithm).update(bytes).digest();
}

/** The document as text. @throws SealpodError INITDATA_SCHEMA where the bytes are not UTF-8 */
export function initdataText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw schemaError('the document is not UTF-8', cause);
  }
}
