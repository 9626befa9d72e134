/**
 * The storage interface of kbs and attestation-service: versioned keys in namespaces, entries that expire, append-only
 * logs, and transactions over all of them. Everything is asynchronous so that an engine over a network fits behind it.
 *
 * @module
 */

/** What may be stored: bytes as they are, text as UTF-8. */
export type StorageValue = Uint8Array | string;

/** One stored value. */
export interface Entry {
  readonly key: string;
  readonly value: Uint8Array;
  /** Counts the writes to this key, from 1. Starts again at 1 after the key was deleted or has expired. */
  readonly version: number;
  /** Milliseconds since the epoch. */
  readonly updatedAt: number;
  /** Milliseconds since the epoch; from then on the entry does not exist. */
  readonly expiresAt?: number;
}

export interface PutOptions {
  /** The version the key must have now; 0 = the key must not exist. Otherwise the write is refused (`STORAGE_CONFLICT`). */
  readonly expectedVersion?: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number;
}

export interface ListOptions {
  /** Only keys that begin so (bytewise). */
  readonly prefix?: string;
  /** Only keys greater than this one (bytewise): the last key of the page before. */
  readonly after?: string;
  /** At most so many entries; default 1000. */
  readonly limit?: number;
}

/** One record of an append-only log. */
export interface LogEntry {
  /** Grows with each record of a stream; never used twice. */
  readonly sequence: number;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** What the record can be found by, e.g. a correlation id. */
  readonly key?: string;
  /** The record as it was appended. */
  readonly value: string;
  /** SHA-256 (hex) over the hash of the record before in this stream and this record (`checkLogChain`). */
  readonly hash: string;
}

export interface ReadLogOptions {
  readonly key?: string;
  /** Only records after this sequence number. */
  readonly after?: number;
  /** At most so many records; default 1000. */
  readonly limit?: number;
  /** Newest first. */
  readonly newestFirst?: boolean;
}

/** What can be done inside and outside a transaction. Every failure is a SealpodError `STORAGE` or `STORAGE_CONFLICT`. */
export interface Operations {
  get(namespace: string, key: string): Promise<Entry | undefined>;
  /** Writes a value and returns its new version. */
  put(namespace: string, key: string, value: StorageValue, options?: PutOptions): Promise<number>;
  /** Removes a key. False where it did not exist. */
  delete(namespace: string, key: string, options?: { readonly expectedVersion?: number }): Promise<boolean>;
  /** Entries in ascending order of their keys' bytes. */
  list(namespace: string, options?: ListOptions): Promise<Entry[]>;
  /** Appends a record (JSON text by convention) and returns its sequence number. */
  append(stream: string, value: string, options?: { readonly key?: string }): Promise<number>;
  read(stream: string, options?: ReadLogOptions): Promise<LogEntry[]>;
}

/** An open storage. Several processes may have the same one open. */
export interface Storage extends Operations {
  /**
   * Runs `work` in one serialisable transaction: all of its writes are on disk when the promise resolves, or none is
   * and the promise rejects with what `work` threw (or `STORAGE`). `work` must await nothing but operations of the
   * transaction it was given: other writers wait meanwhile. An operation of the storage itself awaited inside `work`
   * would wait for itself; a transaction that is not over after `transactionTimeoutMs` is rolled back.
   */
  transaction<Result>(work: (transaction: Operations) => Promise<Result>): Promise<Result>;
  /** Removes entries that have expired; returns how many. Runs by itself each `sweepIntervalMs`. */
  sweep(): Promise<number>;
  /** Waits for what was begun, then closes. Later calls are refused. */
  close(): Promise<void>;
}

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
