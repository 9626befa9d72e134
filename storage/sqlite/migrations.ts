import type { DatabaseSync } from 'node:sqlite';
import { SealpodError } from '@sealpod/protocol/errors';

/** Each migration takes the schema from version `index` to `index + 1`. Published ones are never edited. */
const migrations: readonly string[] = [
  `CREATE TABLE entries (
     namespace TEXT NOT NULL,
     key TEXT NOT NULL,
     value BLOB NOT NULL,
     version INTEGER NOT NULL,
     updated_at INTEGER NOT NULL,
     expires_at INTEGER,
     PRIMARY KEY (namespace, key)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX entries_expiring ON entries (expires_at) WHERE expires_at IS NOT NULL;
   CREATE TABLE log (
     stream TEXT NOT NULL,
     sequence INTEGER NOT NULL,
     at INTEGER NOT NULL,
     key TEXT,
     value TEXT NOT NULL,
     hash TEXT NOT NULL,
     PRIMARY KEY (stream, sequence)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX log_by_key ON log (stream, key, sequence) WHERE key IS NOT NULL;
   CREATE TRIGGER log_is_not_updated BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
   CREATE TRIGGER log_is_not_deleted BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;`,
];

function versionOf(database: DatabaseSync): number {
  return Number(database.prepare('PRAGMA user_version').get()?.['user_version'] ?? 0);
}

/** Brings the schema to this release's version, each step in a transaction of its own; safe when two processes start at once. */
export function migrate(database: DatabaseSync): void {
  for (;;) {
    if (versionOf(database) === migrations.length) return;
    database.exec('BEGIN IMMEDIATE');
    try {
      // Read again under the lock: another process may have migrated meanwhile.
      const version = versionOf(database);
      if (version > migrations.length) {
        throw new SealpodError('STORAGE', 'the database was written by a newer release', {
          expected: `schema version ${migrations.length} or older`,
          actual: `schema version ${version}`,
          fix: 'run the newer release, or restore a backup',
        });
      }
      const statements = migrations[version];
      if (statements !== undefined) database.exec(`${statements}\nPRAGMA user_version = ${version + 1}`);
      database.exec('COMMIT');
    } catch (thrown) {
      if (database.isTransaction) database.exec('ROLLBACK');
      throw thrown;
    }
  }
}
