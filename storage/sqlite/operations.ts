import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';
import { SealpodError } from '@sealpod/protocol/errors';
import { chainHash } from '../log-chain.ts';
import type { Entry, ListOptions, LogEntry, Operations, PutOptions, ReadLogOptions, StorageValue } from '../storage.ts';

const defaultLimit = 1000;
const longestName = 1024;
/** The greatest code point in UTF-8: nothing that begins with a prefix sorts behind prefix + this. */
const last = '\u{10FFFF}';

type Row = Record<string, SQLOutputValue>;

function entryOf(row: Row): Entry {
  const { key, value, version, updated_at, expires_at } = row;
  if (typeof key !== 'string' || !(value instanceof Uint8Array)) {
    throw new SealpodError('STORAGE', 'a stored entry is damaged');
  }
  const entry = { key, value, version: Number(version), updatedAt: Number(updated_at) };
  return expires_at === null || expires_at === undefined ? entry : { ...entry, expiresAt: Number(expires_at) };
}

function logEntryOf(row: Row): LogEntry {
  const { sequence, at, key, value, hash } = row;
  if (typeof value !== 'string' || typeof hash !== 'string') {
    throw new SealpodError('STORAGE', 'a stored log record is damaged');
  }
  const entry = { sequence: Number(sequence), at: Number(at), value, hash };
  return typeof key === 'string' ? { ...entry, key } : entry;
}

function checkName(what: string, name: string): void {
  if (name.length > 0 && name.length <= longestName && !name.includes('\0')) return;
  throw new SealpodError('STORAGE', `a ${what} of the storage is not acceptable`, {
    expected: `1 to ${longestName} characters without NUL`,
    actual: `${name.length} characters`,
  });
}

function refuseVersion(expected: number, actual: number): never {
  throw new SealpodError('STORAGE_CONFLICT', 'the stored value was changed meanwhile', {
    expected: `version ${expected}`,
    actual: `version ${actual}`,
  });
}

const statementTexts = {
  get: 'SELECT * FROM entries WHERE namespace = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)',
  put: `INSERT INTO entries (namespace, key, value, version, updated_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, version = excluded.version,
          updated_at = excluded.updated_at, expires_at = excluded.expires_at`,
  delete: 'DELETE FROM entries WHERE namespace = ? AND key = ?',
  list: `SELECT * FROM entries WHERE namespace = ? AND key >= ? AND key <= ? AND key > ?
         AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?`,
  logHead: 'SELECT sequence, hash FROM log WHERE stream = ? ORDER BY sequence DESC LIMIT 1',
  append: 'INSERT INTO log (stream, sequence, at, key, value, hash) VALUES (?, ?, ?, ?, ?, ?)',
  read: 'SELECT * FROM log WHERE stream = ? AND sequence > ? ORDER BY sequence LIMIT ?',
  readNewest: 'SELECT * FROM log WHERE stream = ? AND sequence > ? ORDER BY sequence DESC LIMIT ?',
  readKey: 'SELECT * FROM log WHERE stream = ? AND key = ? AND sequence > ? ORDER BY sequence LIMIT ?',
  readKeyNewest: 'SELECT * FROM log WHERE stream = ? AND key = ? AND sequence > ? ORDER BY sequence DESC LIMIT ?',
  sweep: 'DELETE FROM entries WHERE expires_at IS NOT NULL AND expires_at <= ?',
} as const;

/** The operations on one connection. Whether they are in a transaction is the connection's affair. */
export class SqliteOperations implements Operations {
  readonly #database: DatabaseSync;
  readonly #now: () => number;
  readonly #statements = new Map<keyof typeof statementTexts, StatementSync>();

  constructor(database: DatabaseSync, now: () => number) {
    this.#database = database;
    this.#now = now;
  }

  #statement(name: keyof typeof statementTexts): StatementSync {
    let statement = this.#statements.get(name);
    if (statement === undefined) {
      statement = this.#database.prepare(statementTexts[name]);
      this.#statements.set(name, statement);
    }
    return statement;
  }

  async get(namespace: string, key: string): Promise<Entry | undefined> {
    const row = this.#statement('get').get(namespace, key, this.#now());
    return row === undefined ? undefined : entryOf(row);
  }

  async put(namespace: string, key: string, value: StorageValue, options: PutOptions = {}): Promise<number> {
    checkName('namespace', namespace);
    checkName('key', key);
    const now = this.#now();
    const current = Number(this.#statement('get').get(namespace, key, now)?.['version'] ?? 0);
    const { expectedVersion, expiresAt } = options;
    if (expectedVersion !== undefined && expectedVersion !== current) refuseVersion(expectedVersion, current);
    const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : value;
    this.#statement('put').run(namespace, key, bytes, current + 1, now, expiresAt ?? null);
    return current + 1;
  }

  async delete(namespace: string, key: string, options: { readonly expectedVersion?: number } = {}): Promise<boolean> {
    const current = Number(this.#statement('get').get(namespace, key, this.#now())?.['version'] ?? 0);
    const { expectedVersion } = options;
    if (expectedVersion !== undefined && expectedVersion !== current) refuseVersion(expectedVersion, current);
    this.#statement('delete').run(namespace, key);
    return current > 0;
  }

  async list(namespace: string, options: ListOptions = {}): Promise<Entry[]> {
    const { prefix = '', after = '', limit = defaultLimit } = options;
    const rows = this.#statement('list').all(namespace, prefix, `${prefix}${last}`, after, this.#now(), limit);
    return rows.map(entryOf);
  }

  async append(stream: string, value: string, options: { readonly key?: string } = {}): Promise<number> {
    checkName('stream', stream);
    const head = this.#statement('logHead').get(stream);
    const sequence = Number(head?.['sequence'] ?? 0) + 1;
    const previous = typeof head?.['hash'] === 'string' ? head['hash'] : '';
    const at = this.#now();
    const { key } = options;
    const record = key === undefined ? { sequence, at, value } : { sequence, at, key, value };
    this.#statement('append').run(stream, sequence, at, key ?? null, value, chainHash(previous, stream, record));
    return sequence;
  }

  async read(stream: string, options: ReadLogOptions = {}): Promise<LogEntry[]> {
    const { key, after = 0, limit = defaultLimit, newestFirst = false } = options;
    const rows =
      key === undefined
        ? this.#statement(newestFirst ? 'readNewest' : 'read').all(stream, after, limit)
        : this.#statement(newestFirst ? 'readKeyNewest' : 'readKey').all(stream, key, after, limit);
    return rows.map(logEntryOf);
  }

  /** Removes what has expired; returns how many entries that were. */
  async sweep(): Promise<number> {
    return Number(this.#statement('sweep').run(this.#now()).changes);
  }
}
