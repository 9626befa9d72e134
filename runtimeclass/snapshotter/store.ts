import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Kind } from '@sealpod/protocol/gen/containerd/snapshots_pb';
import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';

/** A snapshot as it is recorded. There is never any content: the guest pulls images itself. */
export interface Snapshot {
  readonly name: string;
  readonly parent: string;
  readonly kind: Kind;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly labels: Readonly<Record<string, string>>;
}

/** containerd's unpacker names by this label the chain id of the layer it is about to unpack. */
export const referenceLabel = 'containerd.io/snapshot.ref';

type Row = { name: string; parent: string; kind: Kind; created: number; updated: number; labels: string };

const fromRow = (row: Row): Snapshot => ({
  name: row.name,
  parent: row.parent,
  kind: row.kind,
  createdAt: new Date(row.created),
  updatedAt: new Date(row.updated),
  labels: JSON.parse(row.labels),
});

/** Errors carry a status code; the service maps it onto gRPC's, which has the same numbers. */
const refuse = (status: number, message: string): TtrpcError => new TtrpcError(status, message);

/**
 * The record of all snapshots, durable: containerd keeps references to them over restarts of both. Rules are those of
 * containerd's snapshots package: parents are committed, names unique, a parent outlives its children.
 */
export class SnapshotStore {
  readonly #database: DatabaseSync;

  /** Opens or creates the record in `directory`. */
  constructor(directory: string) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#database = new DatabaseSync(join(directory, 'snapshots.sqlite'));
    this.#database.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = FULL;
      CREATE TABLE IF NOT EXISTS snapshot (
        name TEXT PRIMARY KEY, parent TEXT NOT NULL, kind INTEGER NOT NULL,
        created INTEGER NOT NULL, updated INTEGER NOT NULL, labels TEXT NOT NULL
      ) STRICT;
      CREATE INDEX IF NOT EXISTS snapshot_parent ON snapshot (parent);`);
  }

  close(): void {
    this.#database.close();
  }

  find(name: string): Snapshot | undefined {
    const row = this.#database.prepare('SELECT * FROM snapshot WHERE name = ?').get(name);
    return row === undefined ? undefined : fromRow(row as Row);
  }

  /** @throws TtrpcError not found. */
  get(name: string): Snapshot {
    const found = this.find(name);
    if (found === undefined) throw refuse(Status.notFound, `snapshot ${name} does not exist`);
    return found;
  }

  all(): Snapshot[] {
    return this.#database
      .prepare('SELECT * FROM snapshot ORDER BY created, name')
      .all()
      .map((row) => fromRow(row as Row));
  }

  /** @throws TtrpcError already exists, not found or invalid argument (parent). */
  add(kind: Kind, name: string, parent: string, labels: Readonly<Record<string, string>>): Snapshot {
    if (name === '') throw refuse(Status.invalidArgument, 'a snapshot needs a name');
    if (this.find(name) !== undefined) throw refuse(Status.alreadyExists, `snapshot ${name} exists`);
    if (parent !== '' && this.get(parent).kind !== Kind.COMMITTED) {
      throw refuse(Status.invalidArgument, `parent ${parent} is not committed`);
    }
    const now = Date.now();
    this.#database
      .prepare('INSERT INTO snapshot (name, parent, kind, created, updated, labels) VALUES (?, ?, ?, ?, ?, ?)')
      .run(name, parent, kind, now, now, JSON.stringify(labels));
    return this.get(name);
  }

  /**
   * Records a layer as present without its content. The same layer over the same parent, asked for by another namespace,
   * is the same snapshot; containerd finds it by label and parent.
   */
  addLayer(reference: string, parent: string, labels: Readonly<Record<string, string>>): Snapshot {
    const same = this.all().find(
      (snapshot) =>
        snapshot.kind === Kind.COMMITTED && snapshot.parent === parent && snapshot.labels[referenceLabel] === reference,
    );
    if (same !== undefined) return same;
    const name = this.find(reference) === undefined ? reference : `${reference}-${randomUUID()}`;
    return this.add(Kind.COMMITTED, name, parent, { ...labels, [referenceLabel]: reference });
  }

  /** Turns an active snapshot into a committed one under a new name. */
  commit(name: string, key: string, labels: Readonly<Record<string, string>>): void {
    const active = this.get(key);
    if (active.kind !== Kind.ACTIVE) throw refuse(Status.failedPrecondition, `snapshot ${key} is not active`);
    if (this.find(name) !== undefined) throw refuse(Status.alreadyExists, `snapshot ${name} exists`);
    this.#database
      .prepare('UPDATE snapshot SET name = ?, kind = ?, updated = ?, labels = ? WHERE name = ?')
      .run(name, Kind.COMMITTED, Date.now(), JSON.stringify({ ...active.labels, ...labels }), key);
  }

  setLabels(name: string, labels: Readonly<Record<string, string>>): Snapshot {
    this.get(name);
    this.#database
      .prepare('UPDATE snapshot SET labels = ?, updated = ? WHERE name = ?')
      .run(JSON.stringify(labels), Date.now(), name);
    return this.get(name);
  }

  /** @throws TtrpcError not found, or failed precondition while another snapshot stands on it. */
  remove(name: string): void {
    this.get(name);
    if (this.#database.prepare('SELECT 1 FROM snapshot WHERE parent = ? LIMIT 1').get(name) !== undefined) {
      throw refuse(Status.failedPrecondition, `snapshot ${name} has children`);
    }
    this.#database.prepare('DELETE FROM snapshot WHERE name = ?').run(name);
  }
}
