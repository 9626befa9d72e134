import type { DatabaseSync } from 'node:sqlite';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Entry, ListOptions, LogEntry, Operations, PutOptions, ReadLogOptions, StorageValue } from '../storage.ts';
import type { SqliteOperations } from './operations.ts';

/**
 * The operations one transaction is given. They end with it: work that was too slow, or that goes on after SQLite has
 * rolled back by itself (full disk), must not write into somebody else's transaction or outside of any.
 */
export class ScopedOperations implements Operations {
  readonly #database: DatabaseSync;
  readonly #operations: SqliteOperations;
  #open = true;

  constructor(database: DatabaseSync, operations: SqliteOperations) {
    this.#database = database;
    this.#operations = operations;
  }

  end(): void {
    this.#open = false;
  }

  #use(): SqliteOperations {
    if (this.#open && this.#database.isTransaction) return this.#operations;
    throw new SealpodError('STORAGE', 'the transaction is over');
  }

  async get(namespace: string, key: string): Promise<Entry | undefined> {
    return this.#use().get(namespace, key);
  }

  async put(namespace: string, key: string, value: StorageValue, options?: PutOptions): Promise<number> {
    return this.#use().put(namespace, key, value, options);
  }

  async delete(namespace: string, key: string, options?: { readonly expectedVersion?: number }): Promise<boolean> {
    return this.#use().delete(namespace, key, options);
  }

  async list(namespace: string, options?: ListOptions): Promise<Entry[]> {
    return this.#use().list(namespace, options);
  }

  async append(stream: string, value: string, options?: { readonly key?: string }): Promise<number> {
    return this.#use().append(stream, value, options);
  }

  async read(stream: string, options?: ReadLogOptions): Promise<LogEntry[]> {
    return this.#use().read(stream, options);
  }

  async sweep(): Promise<number> {
    return this.#use().sweep();
  }
}
