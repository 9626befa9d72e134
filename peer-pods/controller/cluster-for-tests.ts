import { isDeepStrictEqual } from 'node:util';
import { KubernetesRefusal, type ObjectClient } from './kubernetes/client.ts';
import { type KubernetesObject, nameOf, type ObjectReference, referenceTo } from './kubernetes/objects.ts';

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** RFC 7396. */
function merged(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const base = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete base[name];
    else base[name] = merged(base[name], value);
  }
  return base;
}

/** As the API server merges what has names strategically: lists keep what a patch does not name. */
function strategicallyMerged(target: unknown, patch: unknown): unknown {
  if (Array.isArray(patch) && patch.every((item) => isObject(item) && 'name' in item)) {
    const items = new Map((Array.isArray(target) ? target : []).map((item: Json) => [item['name'], item]));
    for (const { $patch: directive, ...item } of patch as Json[]) {
      if (directive === 'delete') items.delete(item['name']);
      else items.set(item['name'], strategicallyMerged(items.get(item['name']), item) as Json);
    }
    return [...items.values()];
  }
  if (!isObject(patch)) return patch;
  const base = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete base[name];
    else base[name] = strategicallyMerged(base[name], value);
  }
  return base;
}

/** The generation counts changes of the specification. */
function withGeneration(object: KubernetesObject, before: KubernetesObject | undefined): KubernetesObject {
  const changed = !isDeepStrictEqual(before?.['spec'], object['spec']);
  const generation = (before?.metadata.generation ?? 0) + (changed ? 1 : 0);
  return { ...object, metadata: { ...object.metadata, generation } };
}

/** Objects in memory, for unit tests of what reads and writes them. Lists are replaced, not merged. */
export class ClusterForTests implements ObjectClient {
  readonly objects = new Map<string, KubernetesObject>();
  /** Names of the objects that were deleted, in order. */
  readonly deleted: string[] = [];
  /** Thrown in the place of applying an object of that name. */
  refuse: ((object: KubernetesObject) => KubernetesRefusal | undefined) | undefined;
  #version = 0;

  /** Stores an object, as another client would. */
  put(object: object): void {
    const given = object as KubernetesObject;
    const { name } = given.metadata;
    this.#version += 1;
    const metadata = {
      uid: `uid-${name}-${this.#version}`,
      generation: 1,
      creationTimestamp: new Date(1_700_000_000_000 + this.#version * 1000).toISOString(),
      ...given.metadata,
      resourceVersion: String(this.#version),
    };
    this.objects.set(nameOf(referenceTo(given)), { ...given, metadata });
  }

  get<T extends KubernetesObject>(reference: ObjectReference): Promise<T | undefined> {
    return Promise.resolve(structuredClone(this.objects.get(nameOf(reference))) as T | undefined);
  }

  list<T extends KubernetesObject>(
    apiVersion: string,
    kind: string,
    { namespace, labels = '' }: { readonly namespace?: string; readonly labels?: string } = {},
  ) {
    const wanted = labels === '' ? [] : labels.split(',').map((label) => label.split('='));
    const items = [...this.objects.values()].filter(
      (object) =>
        object.apiVersion === apiVersion &&
        object.kind === kind &&
        (namespace === undefined || object.metadata.namespace === namespace) &&
        wanted.every(([name = '', value]) => object.metadata.labels?.[name] === value),
    );
    return Promise.resolve({ items: structuredClone(items) as unknown as T[], metadata: {} });
  }

  async apply(object: KubernetesObject): Promise<KubernetesObject> {
    const refused = this.refuse?.(object);
    if (refused !== undefined) throw refused;
    const before = this.objects.get(nameOf(referenceTo(object)));
    this.put(withGeneration(merged(before ?? {}, object) as KubernetesObject, before));
    return this.#stored(object);
  }

  async create(object: KubernetesObject): Promise<KubernetesObject> {
    if (this.objects.has(nameOf(referenceTo(object)))) throw new KubernetesRefusal(409, 'AlreadyExists', 'it exists');
    this.put(object);
    return this.#stored(object);
  }

  async replace(object: KubernetesObject): Promise<KubernetesObject> {
    if (this.#stored(object).metadata.resourceVersion !== object.metadata.resourceVersion) {
      throw new KubernetesRefusal(409, 'Conflict', 'it was changed meanwhile');
    }
    this.put(object);
    return this.#stored(object);
  }

  merge(reference: ObjectReference, patch: object): Promise<KubernetesObject> {
    return this.#patch(reference, patch, merged);
  }

  async #patch(reference: ObjectReference, patch: object, by: typeof merged): Promise<KubernetesObject> {
    const before = this.objects.get(nameOf(reference));
    if (before === undefined) throw new KubernetesRefusal(404, 'NotFound', 'there is none');
    const { resourceVersion: _version, ...metadata } = ((patch as Json)['metadata'] ?? {}) as Json;
    const next = withGeneration(by(before, { ...patch, metadata }) as KubernetesObject, before);
    this.put(next);
    const { deletionTimestamp, finalizers = [] } = next.metadata;
    if (deletionTimestamp !== undefined && finalizers.length === 0) this.objects.delete(nameOf(reference));
    return next;
  }

  strategicMerge(reference: ObjectReference, patch: object): Promise<KubernetesObject> {
    return this.#patch(reference, patch, strategicallyMerged);
  }

  delete(reference: ObjectReference): Promise<void> {
    if (this.objects.delete(nameOf(reference))) this.deleted.push(nameOf(reference));
    return Promise.resolve();
  }

  /** Sets when an object was asked to go; it stays while it has finalizers. */
  markDeleted(reference: ObjectReference): void {
    const object = this.objects.get(nameOf(reference));
    if (object === undefined) throw new TypeError(`there is no ${nameOf(reference)}`);
    this.put({ ...object, metadata: { ...object.metadata, deletionTimestamp: new Date(0).toISOString() } });
  }

  #stored(object: KubernetesObject): KubernetesObject {
    const stored = this.objects.get(nameOf(referenceTo(object)));
    if (stored === undefined) throw new KubernetesRefusal(404, 'NotFound', 'there is none');
    return structuredClone(stored);
  }
}
