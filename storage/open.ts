import { openSqlite } from './sqlite/engine.ts';
import type { Storage } from './storage.ts';

export interface StorageOptions {
  /** The database file. Its directory is created (0700) where it is missing, and refused where others can enter it. */
  readonly path: string;
  /** How long a write waits for another process, in milliseconds; default 5000. */
  readonly busyTimeoutMs?: number;
  /** How long a transaction may take, in milliseconds; default 5000. */
  readonly transactionTimeoutMs?: number;
  /** How often expired entries are removed, in milliseconds; default 60 000; 0 = never by itself. */
  readonly sweepIntervalMs?: number;
  /** Writes that would make the database larger are refused (`STORAGE`). In bytes; default: no limit. */
  readonly maximumBytes?: number;
  /** The clock, in milliseconds since the epoch. */
  readonly now?: () => number;
}

/**
 * Opens (creates) a storage in an SQLite file: WAL, every commit synced to disk, files 0600.
 * Throws `STORAGE` where the file cannot be used or was written by a newer release.
 */
export async function openStorage(options: StorageOptions): Promise<Storage> {
  return openSqlite(options);
}
