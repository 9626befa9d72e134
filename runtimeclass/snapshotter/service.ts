import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { EmptySchema, timestampFromDate } from '@bufbuild/protobuf/wkt';
import {
  type CommitSnapshotRequest,
  type InfoSchema,
  Kind,
  type ListSnapshotsRequest,
  ListSnapshotsResponseSchema,
  type MountsRequest,
  MountsResponseSchema,
  type PrepareSnapshotRequest,
  PrepareSnapshotResponseSchema,
  type RemoveSnapshotRequest,
  type StatSnapshotRequest,
  StatSnapshotResponseSchema,
  type UpdateSnapshotRequest,
  UpdateSnapshotResponseSchema,
  type UsageRequest,
  UsageResponseSchema,
  type ViewSnapshotRequest,
  ViewSnapshotResponseSchema,
} from '@sealpod/protocol/gen/containerd/snapshots_pb';
import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';
import { parseFilters } from './filter.ts';
import { isExtraction, Scratch } from './scratch.ts';
import { referenceLabel, type Snapshot, SnapshotStore } from './store.ts';

const listed = 100;

const information = (snapshot: Snapshot): MessageInitShape<typeof InfoSchema> => ({
  name: snapshot.name,
  parent: snapshot.parent,
  kind: snapshot.kind,
  createdAt: timestampFromDate(snapshot.createdAt),
  updatedAt: timestampFromDate(snapshot.updatedAt),
  labels: { ...snapshot.labels },
});

/**
 * containerd's snapshot service for images that only the guest may see. A layer that is to be unpacked "exists already",
 * so that containerd fetches manifest and configuration but no layer; a container's root is one empty, read-only
 * directory, which the shim ignores.
 *
 * Where an image is on the node already (a plain pod pulled it, or containerd 1.7 fetched the sandbox's image),
 * containerd unpacks it for this snapshotter without saying which layer it is about to unpack. Then the layer goes into a
 * directory that is removed as soon as containerd commits it.
 */
export class SnapshotService {
  readonly #store: SnapshotStore;
  readonly #empty: string;
  readonly #scratch: Scratch;

  /** Keeps its record, and the one empty directory, under `root`. */
  constructor(root: string) {
    this.#store = new SnapshotStore(root);
    this.#empty = join(root, 'empty');
    mkdirSync(this.#empty, { recursive: true, mode: 0o555 });
    const active = this.#store.all().filter(({ kind }) => kind === Kind.ACTIVE);
    this.#scratch = new Scratch(
      join(root, 'extract'),
      active.map(({ name }) => name),
    );
  }

  close(): void {
    this.#store.close();
  }

  /** How many snapshots are on record. */
  get count(): number {
    return this.#store.all().length;
  }

  #mounts({ kind, name }: Snapshot) {
    return kind === Kind.ACTIVE && isExtraction(name)
      ? [{ type: 'bind', source: this.#scratch.path(name), target: '', options: ['rbind', 'rw'] }]
      : [{ type: 'bind', source: this.#empty, target: '', options: ['rbind', 'ro'] }];
  }

  prepare({ key, parent, labels }: PrepareSnapshotRequest) {
    const reference = labels[referenceLabel];
    if (reference !== undefined && reference !== '') {
      const { name } = this.#store.addLayer(reference, parent, labels);
      throw new TtrpcError(Status.alreadyExists, `target snapshot ${name}: already exists`);
    }
    const snapshot = this.#store.add(Kind.ACTIVE, key, parent, labels);
    if (isExtraction(key)) this.#scratch.make(key);
    return create(PrepareSnapshotResponseSchema, { mounts: this.#mounts(snapshot) });
  }

  view({ key, parent, labels }: ViewSnapshotRequest) {
    const snapshot = this.#store.add(Kind.VIEW, key, parent, labels);
    return create(ViewSnapshotResponseSchema, { mounts: this.#mounts(snapshot) });
  }

  mounts({ key }: MountsRequest) {
    const snapshot = this.#store.get(key);
    if (snapshot.kind === Kind.COMMITTED) {
      throw new TtrpcError(Status.failedPrecondition, `snapshot ${key} is committed and has no mounts`);
    }
    return create(MountsResponseSchema, { mounts: this.#mounts(snapshot) });
  }

  commit({ name, key, labels }: CommitSnapshotRequest) {
    this.#store.commit(name, key, labels);
    this.#scratch.remove(key);
    return create(EmptySchema);
  }

  remove({ key }: RemoveSnapshotRequest) {
    this.#store.remove(key);
    this.#scratch.remove(key);
    return create(EmptySchema);
  }

  stat({ key }: StatSnapshotRequest) {
    return create(StatSnapshotResponseSchema, { info: information(this.#store.get(key)) });
  }

  /** Only labels can change: all of them, or those the mask names. */
  update({ info, updateMask }: UpdateSnapshotRequest) {
    if (info === undefined) throw new TtrpcError(Status.invalidArgument, 'an update needs a snapshot');
    const present = this.#store.get(info.name);
    const paths = updateMask?.paths ?? [];
    if (paths.length === 0 || paths.includes('labels')) {
      const updated = this.#store.setLabels(info.name, info.labels);
      return create(UpdateSnapshotResponseSchema, { info: information(updated) });
    }
    const labels = { ...present.labels };
    for (const path of paths) {
      const key = /^labels\.(.+)$/.exec(path)?.[1];
      if (key === undefined) {
        throw new TtrpcError(Status.invalidArgument, `cannot update ${JSON.stringify(path)} of a snapshot`);
      }
      const value = info.labels[key];
      if (value === undefined || value === '') delete labels[key];
      else labels[key] = value;
    }
    return create(UpdateSnapshotResponseSchema, { info: information(this.#store.setLabels(info.name, labels)) });
  }

  *list({ filters }: ListSnapshotsRequest) {
    const matching = this.#store.all().filter(parseFilters(filters));
    for (let offset = 0; offset < matching.length; offset += listed) {
      yield create(ListSnapshotsResponseSchema, { info: matching.slice(offset, offset + listed).map(information) });
    }
  }

  /** Nothing is kept on the host but while it is unpacked, so nothing is used. */
  usage({ key }: UsageRequest) {
    this.#store.get(key);
    return create(UsageResponseSchema, { size: 0n, inodes: 0n });
  }

  /** There is no content that could be left behind. */
  cleanup() {
    return create(EmptySchema);
  }
}
