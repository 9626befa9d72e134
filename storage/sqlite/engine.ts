import type { DatabaseSync } from 'node:sqlite';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type {
  Entry,
  ListOptions,
  LogEntry,
  Operations,
  PutOptions,
  ReadLogOptions,
  Storage,
  StorageOptions,
  StorageValue,
} from '../storage.ts';
import { connect, preparePrivateFile } from './connection.ts';
import { migrate } from './migrations.ts';
import { SqliteOperations } from './operations.ts';
import { TransactionQueue } from './transaction-queue.ts';

class SqliteStorage implements Storage {
  readonly #reader: DatabaseSync;
  readonly #writer: DatabaseSync;
  readonly #reads: SqliteOperations;
  readonly #queue: TransactionQueue;
  readonly #sweeping: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(reader: DatabaseSync, writer: DatabaseSync, options: StorageOptions) {
    const now = options.now ?? Date.now;
    this.#reader = reader;
    this.#writer = writer;
    this.#reads = new SqliteOperations(reader, now);
    this.#queue = new TransactionQueue(writer, new SqliteOperations(writer, now), options.transactionTimeoutMs ?? 5000);
    const interval = options.sweepIntervalMs ?? 60_000;
    // A sweep that fails (disk full, another writer) is tried again at the next interval: expired entries are
    // invisible without it.
    if (interval > 0) this.#sweeping = setInterval(() => this.sweep().catch(() => 0), interval).unref();
  }

  async #read<Result>(work: (operations: SqliteOperations) => Promise<Result>): Promise<Result> {
    if (this.#closed) throw new SealpodError('STORAGE', 'the storage is closed');
    try {
      return await work(this.#reads);
    } catch (thrown) {
      throw asSealpodError(thrown, 'STORAGE');
    }
  }

  transaction<Result>(work: (transaction: Operations) => Promise<Result>): Promise<Result> {
    return this.#queue.run(work);
  }

  get(namespace: string, key: string): Promise<Entry | undefined> {
    return this.#read((operations) => operations.get(namespace, key));
  }

  list(namespace: string, options?: ListOptions): Promise<Entry[]> {
    return this.#read((operations) => operations.list(namespace, options));
  }

  read(stream: string, options?: ReadLogOptions): Promise<LogEntry[]> {
    return this.#read((operations) => operations.read(stream, options));
  }

  put(namespace: string, key: string, value: StorageValue, options?: PutOptions): Promise<number> {
    return this.#queue.run((operations) => operations.put(namespace, key, value, options));
  }

  delete(namespace: string, key: string, options?: { readonly expectedVersion?: number }): Promise<boolean> {
    return this.#queue.run((operations) => operations.delete(namespace, key, options));
  }

  append(stream: string, value: string, options?: { readonly key?: string }): Promise<number> {
    return this.#queue.run((operations) => operations.append(stream, value, options));
  }

  sweep(): Promise<number> {
    return this.#queue.run((operations) => operations.sweep());
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    clearInterval(this.#sweeping);
    await this.#queue.close();
    this.#closed = true;
    this.#reader.close();
    this.#writer.close();
  }
}

/** Opens the SQLite engine; see `openStorage`. */
export async function openSqlite(options: StorageOptions): Promise<Storage> {
  const { path, busyTimeoutMs = 5000, maximumBytes } = options;
  const opened: DatabaseSync[] = [];
  try {
    preparePrivateFile(path);
    const writer = await connect(
      maximumBytes === undefined ? { path, busyTimeoutMs } : { path, busyTimeoutMs, maximumBytes },
    );
    opened.push(writer);
    migrate(writer);
    const reader = await connect({ path, busyTimeoutMs });
    opened.push(reader);
    return new SqliteStorage(reader, writer, options);
  } catch (cause) {
    for (const database of opened) database.close();
    if (cause instanceof SealpodError) throw cause;
    throw new SealpodError(
      'STORAGE',
      `the database could not be opened: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        source: path,
        cause,
      },
    );
  }
}
