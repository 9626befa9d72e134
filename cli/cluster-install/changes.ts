import { isDeepStrictEqual } from 'node:util';
import { parseAllDocuments } from 'yaml';

/** One object that an upgrade would create, change or delete. */
export interface Change {
  readonly object: string;
  readonly change: 'create' | 'change' | 'delete';
  /** What of it is different, as paths; empty for what is created or deleted. */
  readonly fields: readonly string[];
  /** What follows for what runs. */
  readonly effect: string;
}

interface KubernetesObject {
  readonly kind?: string;
  readonly metadata?: { readonly name?: string; readonly namespace?: string };
  readonly spec?: { readonly template?: unknown };
}

/** Compares two renderings of a chart (YAML). The order of objects does not matter. */
export function compareManifests(before: string, after: string): readonly Change[] {
  const old = objectsOf(before);
  const fresh = objectsOf(after);
  const changes: Change[] = [];
  for (const [name, object] of fresh) {
    const previous = old.get(name);
    if (previous === undefined) changes.push({ object: name, change: 'create', fields: [], effect: '' });
    else if (!isDeepStrictEqual(previous, object)) {
      const fields = differences(previous, object, '');
      changes.push({ object: name, change: 'change', fields, effect: effectOf(previous, object) });
    }
  }
  for (const name of old.keys()) {
    if (!fresh.has(name)) changes.push({ object: name, change: 'delete', fields: [], effect: '' });
  }
  return changes.sort((left, right) => (left.object < right.object ? -1 : 1));
}

function objectsOf(text: string): Map<string, KubernetesObject> {
  const objects = parseAllDocuments(text)
    .map((document) => document.toJS() as KubernetesObject | null)
    .filter((object) => object !== null && object.kind !== undefined) as KubernetesObject[];
  return new Map(
    objects.map((object) => {
      const { name = '', namespace } = object.metadata ?? {};
      return [`${object.kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`, object];
    }),
  );
}

/** Pods of a workload are replaced where their template changes, and only then. */
function effectOf(before: KubernetesObject, after: KubernetesObject): string {
  if (isDeepStrictEqual(before.spec?.template, after.spec?.template)) return '';
  if (after.kind === 'DaemonSet') return 'its pods are replaced, node by node; sealed pods go on';
  return ['Deployment', 'StatefulSet'].includes(after.kind ?? '') ? 'its pods are replaced' : '';
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function differences(before: unknown, after: unknown, path: string): string[] {
  if (isDeepStrictEqual(before, after)) return [];
  if (isRecord(before) && isRecord(after)) {
    const names = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...names].flatMap((name) => differences(before[name], after[name], path === '' ? name : `${path}.${name}`));
  }
  if (Array.isArray(before) && Array.isArray(after) && before.length === after.length) {
    return before.flatMap((item, index) => differences(item, after[index], `${path}[${index}]`));
  }
  return [path];
}
