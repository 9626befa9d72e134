import { SealpodError } from '@sealpod/protocol/errors';
import { parseResourceName, type ResourceName } from '@sealpod/protocol/resource-uri';
import { type Entry, jsonOf, type Operations, type Storage } from '@sealpod/storage';

/** `<repository>/<type>/<tag>` → what is known of the resource; the bytes lie in their own namespace by version. */
const metadataNamespace = 'kbs/resource';
const bytesNamespace = 'kbs/resource-bytes';

/** What an operator may see of a resource. */
export interface ResourceMetadata {
  readonly path: string;
  /** Counts the writes to this name, across deletions. */
  readonly version: number;
  readonly size: number;
  /** The named resource policy it is bound to; otherwise `resource-policy` decides. */
  readonly policy?: string;
  /** RFC 3339. */
  readonly updatedAt: string;
}

interface StoredMetadata extends ResourceMetadata {
  readonly deleted: boolean;
}

/** Canonical name of path segments that were decoded once. Throws `RES_NAME` for everything else. */
export function resourcePathOf(segments: readonly string[]): string {
  // A segment that holds a slash after decoding must not become two.
  if (segments.some((segment) => segment.includes('/'))) {
    throw new SealpodError('RES_NAME', 'a segment of the resource name holds a slash');
  }
  const { repository, type, tag }: ResourceName = parseResourceName(segments.join('/'));
  return `${repository}/${type}/${tag}`;
}

function metadataOf(entry: Entry | undefined): StoredMetadata | undefined {
  // Written by this file only, and the storage is this process's own.
  return entry === undefined ? undefined : (jsonOf(entry) as StoredMetadata);
}

function bytesKey(path: string, version: number): string {
  return `${path}#${version}`;
}

function publicMetadata({ path, version, size, policy, updatedAt }: StoredMetadata): ResourceMetadata {
  return { path, version, size, updatedAt, ...(policy === undefined ? {} : { policy }) };
}

/** What is stored under a name now. */
export async function findResource(operations: Operations, path: string): Promise<ResourceMetadata | undefined> {
  const stored = metadataOf(await operations.get(metadataNamespace, path));
  return stored === undefined || stored.deleted ? undefined : publicMetadata(stored);
}

/** The bytes of one version. Throws `STORAGE` where they are gone or damaged. */
export async function readResource(operations: Operations, resource: ResourceMetadata): Promise<Uint8Array> {
  const entry = await operations.get(bytesNamespace, bytesKey(resource.path, resource.version));
  if (entry === undefined || entry.value.length !== resource.size) {
    throw new SealpodError('STORAGE', 'the bytes of a resource are missing or damaged', { source: resource.path });
  }
  return entry.value;
}

export interface WriteOptions {
  readonly policy?: string;
  readonly keptVersions: number;
  readonly now: number;
}

/** Stores a new version and forgets the ones beyond `keptVersions`. A write without a policy keeps the binding there was. */
export async function writeResource(
  transaction: Operations,
  path: string,
  bytes: Uint8Array,
  options: WriteOptions,
): Promise<ResourceMetadata> {
  const before = metadataOf(await transaction.get(metadataNamespace, path));
  const version = (before?.version ?? 0) + 1;
  const policy = options.policy ?? (before?.deleted === false ? before.policy : undefined);
  const updatedAt = new Date(options.now).toISOString();
  const base = { path, version, size: bytes.length, updatedAt, deleted: false };
  const metadata: StoredMetadata = policy === undefined ? base : { ...base, policy };
  await transaction.put(metadataNamespace, path, JSON.stringify(metadata));
  await transaction.put(bytesNamespace, bytesKey(path, version), bytes);
  if (version > options.keptVersions) {
    await transaction.delete(bytesNamespace, bytesKey(path, version - options.keptVersions));
  }
  return publicMetadata(metadata);
}

/** Removes a resource and all of its versions; the count of versions goes on. Undefined where there was none. */
export async function deleteResource(transaction: Operations, path: string): Promise<ResourceMetadata | undefined> {
  const before = metadataOf(await transaction.get(metadataNamespace, path));
  if (before === undefined || before.deleted) return undefined;
  for (const entry of await transaction.list(bytesNamespace, { prefix: `${path}#` })) {
    await transaction.delete(bytesNamespace, entry.key);
  }
  await transaction.put(metadataNamespace, path, JSON.stringify({ ...before, size: 0, deleted: true }));
  return publicMetadata(before);
}

/** All resources in the order of their names. */
export async function listResources(storage: Storage): Promise<ResourceMetadata[]> {
  const found: ResourceMetadata[] = [];
  let after = '';
  for (;;) {
    const page = await storage.list(metadataNamespace, { after, limit: 1000 });
    for (const entry of page) {
      const stored = metadataOf(entry);
      if (stored !== undefined && !stored.deleted) found.push(publicMetadata(stored));
      after = entry.key;
    }
    if (page.length === 0) return found;
  }
}
