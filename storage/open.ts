import { openSqlite } from './sqlite/engine.ts';
import type { Storage, StorageOptions } from './storage.ts';

/**
 * Opens (creates) a storage in an SQLite file: WAL, every commit synced to disk, files 0600.
 * Throws `STORAGE` where the file cannot be used or was written by a newer release.
 */
export async function openStorage(options: StorageOptions): Promise<Storage> {
  return openSqlite(options);
}
