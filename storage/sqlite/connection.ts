import { chmodSync, closeSync, mkdirSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/** Makes sure that nobody else can enter the directory or read the file; creates both where they are missing. */
export function preparePrivateFile(path: string): void {
  const directory = dirname(path);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const mode = statSync(directory).mode & 0o777;
  if ((mode & 0o077) !== 0) {
    throw new SealpodError('STORAGE', 'the directory of the database is open to other users', {
      expected: '0700',
      actual: `0${mode.toString(8)}`,
      source: directory,
      fix: `chmod 700 ${directory}`,
    });
  }
  // SQLite gives its -wal and -shm files the mode of the database file.
  closeSync(openSync(path, 'a', 0o600));
  chmodSync(path, 0o600);
}

/**
 * SQLite does not wait for another process that changes the journal mode at the same moment, as happens when two start
 * on a new database: it says at once that the database is busy.
 */
async function enterWal(database: DatabaseSync, patienceMs: number): Promise<void> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    try {
      database.exec('PRAGMA journal_mode = WAL');
      return;
    } catch (thrown) {
      const busy = thrown instanceof Error && 'errcode' in thrown && (Number(thrown.errcode) & 0xff) === sqliteBusy;
      if (!busy || Date.now() > deadline) throw thrown;
    }
    await delay(10);
  }
}

/** SQLITE_BUSY, the low byte of its extended codes too. */
const sqliteBusy = 5;

export interface ConnectionOptions {
  readonly path: string;
  readonly busyTimeoutMs: number;
  readonly maximumBytes?: number;
}

/** Opens one connection: WAL, every commit synced, deleted content overwritten, waits for other writers. */
export async function connect(options: ConnectionOptions): Promise<DatabaseSync> {
  const database = new DatabaseSync(options.path, { timeout: options.busyTimeoutMs, allowExtension: false });
  try {
    await enterWal(database, options.busyTimeoutMs);
    database.exec('PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA secure_delete = ON;');
    if (options.maximumBytes !== undefined) {
      const pageSize = Number(database.prepare('PRAGMA page_size').get()?.['page_size'] ?? 4096);
      database.exec(`PRAGMA max_page_count = ${Math.max(1, Math.floor(options.maximumBytes / pageSize))}`);
    }
    return database;
  } catch (thrown) {
    database.close();
    throw thrown;
  }
}
