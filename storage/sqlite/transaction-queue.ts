import type { DatabaseSync } from 'node:sqlite';
import { SealpodError } from '@sealpod/protocol/errors';
import type { SqliteOperations } from './operations.ts';
import { ScopedOperations } from './scoped-operations.ts';

/** Bounds how long other processes wait for this one's commit. */
const largestBatch = 64;

/** Tells the caller how its transaction ended. */
type Settle = () => void;

interface Pending {
  /** Does the work and returns how to report its success, which must wait for the commit. */
  readonly run: (operations: ScopedOperations) => Promise<Settle>;
  readonly reject: (reason: unknown) => void;
}

function storageFailure(thrown: unknown): unknown {
  const isSqlite = thrown instanceof Error && 'code' in thrown && thrown.code === 'ERR_SQLITE_ERROR';
  return isSqlite ? new SealpodError('STORAGE', thrown.message, { cause: thrown }) : thrown;
}

/**
 * Runs transactions one after the other on the writing connection. Those that wait at the same time share one commit
 * (one sync of the disk): each is a savepoint, so that one that fails undoes only its own writes, and none is reported
 * done before the commit is on disk.
 */
export class TransactionQueue {
  readonly #database: DatabaseSync;
  readonly #operations: SqliteOperations;
  readonly #timeoutMs: number;
  readonly #waiting: Pending[] = [];
  #draining: Promise<void> | undefined;
  #closed = false;

  constructor(database: DatabaseSync, operations: SqliteOperations, timeoutMs: number) {
    this.#database = database;
    this.#operations = operations;
    this.#timeoutMs = timeoutMs;
  }

  run<Result>(work: (operations: ScopedOperations) => Promise<Result>): Promise<Result> {
    if (this.#closed) return Promise.reject(new SealpodError('STORAGE', 'the storage is closed'));
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    const run = async (operations: ScopedOperations): Promise<Settle> => {
      const result = await work(operations);
      return () => resolve(result);
    };
    this.#waiting.push({ run, reject });
    this.#draining ??= this.#drain();
    return promise;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#draining;
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      // What arrives in this turn of the event loop joins the batch.
      await new Promise((resolve) => setImmediate(resolve));
      await this.#commit(this.#waiting.splice(0, largestBatch));
    }
    this.#draining = undefined;
  }

  async #commit(batch: readonly Pending[]): Promise<void> {
    const settled = new Map<Pending, Settle>();
    try {
      this.#database.exec('BEGIN IMMEDIATE');
      for (const pending of batch) settled.set(pending, await this.#savepoint(pending));
      this.#database.exec('COMMIT');
    } catch (thrown) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      // Nothing of the batch is on disk. A promise that was rejected already keeps its own reason.
      for (const pending of batch) pending.reject(storageFailure(thrown));
      return;
    }
    for (const settle of settled.values()) settle();
  }

  /** Returns how to report the outcome after the commit. Throws where the whole batch is lost. */
  async #savepoint(pending: Pending): Promise<Settle> {
    this.#database.exec('SAVEPOINT work');
    try {
      const settle = await this.#bounded(pending);
      this.#database.exec('RELEASE work');
      return settle;
    } catch (thrown) {
      const failure = storageFailure(thrown);
      // A full disk makes SQLite roll back everything.
      if (!this.#database.isTransaction) throw failure;
      this.#database.exec('ROLLBACK TO work; RELEASE work');
      return () => pending.reject(failure);
    }
  }

  async #bounded(pending: Pending): Promise<Settle> {
    const scope = new ScopedOperations(this.#database, this.#operations);
    const { promise: expired, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => reject(new SealpodError('STORAGE', `a transaction took longer than ${this.#timeoutMs} ms`)),
      this.#timeoutMs,
    );
    try {
      return await Promise.race([pending.run(scope), expired]);
    } finally {
      clearTimeout(timer);
      scope.end();
    }
  }
}
