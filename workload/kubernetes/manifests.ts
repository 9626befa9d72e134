import { SealpodError } from '@sealpod/protocol/errors';
import { type Document, parseAllDocuments } from 'yaml';
import type { KnownConfiguration } from './environment.ts';
import type { PodOwner } from './names.ts';
import type { ConfigMap, Container, ObjectMeta, PodTemplate, Secret } from './types.ts';

/** Where the pod template stands in each kind of workload. */
const templatePaths: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  ReplicationController: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};

const maxManifestBytes = 16 * 1024 * 1024;
const maxAliases = 100;
type Path = readonly (string | number)[];

/** A pod template in the manifests, and where. */
export interface TemplateInManifest {
  readonly document: Document;
  /** Path of the template (`metadata`, `spec`) in the document. */
  readonly path: Path;
  readonly owner: PodOwner;
  readonly template: PodTemplate;
}

export interface Manifests {
  /** In the order of the text; comments and layout are kept. */
  readonly documents: readonly Document[];
  readonly templates: readonly TemplateInManifest[];
  readonly configuration: KnownConfiguration;
}

interface KubernetesObject {
  readonly kind?: string;
  readonly metadata?: ObjectMeta;
  readonly items?: readonly unknown[];
  readonly spec?: { readonly volumeClaimTemplates?: readonly { readonly metadata?: ObjectMeta }[] };
}

/**
 * Reads manifests: YAML or JSON, several documents, lists; what is no workload, ConfigMap or Secret is left as it is.
 *
 * @throws SealpodError USAGE for text that is not YAML, or objects whose parts have the wrong type
 */
export function readManifests(text: string): Manifests {
  if (Buffer.byteLength(text) > maxManifestBytes) {
    throw new SealpodError('USAGE', 'the manifests are too large', { expected: `at most ${maxManifestBytes} bytes` });
  }
  const parsed = parseAllDocuments(text);
  const documents = Array.isArray(parsed) ? parsed : [];
  const templates: TemplateInManifest[] = [];
  const configMaps = new Map<string, ConfigMap>();
  const secrets = new Map<string, Secret>();
  for (const document of documents) {
    const [error] = document.errors;
    if (error !== undefined)
      throw new SealpodError('USAGE', `the manifests are not YAML: ${error.message}`, { cause: error });
    for (const { object, path } of objectsIn(document.toJS({ maxAliasCount: maxAliases }), [])) {
      const name = object.metadata?.name ?? '';
      if (object.kind === 'ConfigMap') configMaps.set(name, object as ConfigMap);
      if (object.kind === 'Secret') secrets.set(name, object as Secret);
      const inside = Object.hasOwn(templatePaths, object.kind ?? '') ? templatePaths[object.kind ?? ''] : undefined;
      if (inside === undefined) continue;
      const template = withClaims(object, at(object, inside) as PodTemplate | undefined);
      checkTemplate(template, `${object.kind} ${name}`);
      const owner = { kind: object.kind ?? '', metadata: object.metadata ?? {} };
      templates.push({ document, path: [...path, ...inside], owner, template });
    }
  }
  return { documents, templates, configuration: { configMaps, secrets } };
}

/**
 * Reads a list of containers, as a pod has it (YAML or JSON).
 *
 * @throws SealpodError USAGE
 */
export function readContainers(text: string): Container[] {
  if (Buffer.byteLength(text) > maxManifestBytes) {
    throw new SealpodError('USAGE', 'the list of containers is too large', {
      expected: `at most ${maxManifestBytes} bytes`,
    });
  }
  const [document, ...more] = parseAllDocuments(text);
  const [error] = document?.errors ?? [];
  if (document === undefined || error !== undefined || more.length > 0)
    throw new SealpodError('USAGE', 'not a list of containers', { ...(error === undefined ? {} : { cause: error }) });
  const containers: unknown = document.toJS({ maxAliasCount: maxAliases });
  const template = { spec: { containers } } as PodTemplate;
  checkTemplate(template, 'list of containers');
  return [...(template.spec?.containers ?? [])];
}

/** The text of manifests again. */
export function writeManifests(documents: readonly Document[]): string {
  return documents
    .map((document) => document.toString({ lineWidth: 0 }))
    .join('---\n')
    .replaceAll(/^(---\n){2}/gm, '---\n');
}

function objectsIn(value: unknown, path: Path): { readonly object: KubernetesObject; readonly path: Path }[] {
  if (typeof value !== 'object' || value === null) return [];
  const object = value as KubernetesObject;
  if (!Array.isArray(object.items) || object.kind?.endsWith('List') !== true) return [{ object, path }];
  return object.items.flatMap((item, index) => objectsIn(item, [...path, 'items', index]));
}

/** A StatefulSet's pods have a volume for each of its claims, in place of one of that name. */
function withClaims(object: KubernetesObject, template: PodTemplate | undefined): PodTemplate | undefined {
  const claims = object.kind === 'StatefulSet' ? object.spec?.volumeClaimTemplates : undefined;
  if (!Array.isArray(claims) || typeof template?.spec !== 'object') return template;
  const names = claims.map(({ metadata }) => metadata?.name ?? '');
  const { volumes = [] } = template.spec;
  if (!Array.isArray(volumes)) return template;
  const own = names.map((name) => ({ name, persistentVolumeClaim: {} }));
  return {
    ...template,
    spec: { ...template.spec, volumes: [...volumes.filter(({ name }) => !names.includes(name)), ...own] },
  };
}

function at(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (found, name) =>
      typeof found === 'object' && found !== null ? (found as Record<string, unknown>)[name] : undefined,
    value,
  );
}

/** Looks at the parts whose wrong type would otherwise be found somewhere else, as something else. */
function checkTemplate(template: PodTemplate | undefined, what: string): asserts template is PodTemplate {
  const spec = template?.spec;
  const problem = (text: string) =>
    new SealpodError('USAGE', `${what}: ${text}`, { fix: 'check it with `kubectl apply --dry-run=server`' });
  if (spec === undefined || typeof spec !== 'object') throw problem('has no pod specification');
  for (const name of ['containers', 'initContainers', 'volumes'] as const) {
    const list: unknown = spec[name] ?? [];
    if (!Array.isArray(list)) throw problem(`spec.${name} is not a list`);
    for (const item of list as unknown[]) {
      const named = typeof item === 'object' && item !== null && typeof (item as { name?: unknown }).name === 'string';
      if (!named) throw problem(`an item of spec.${name} has no name`);
    }
  }
  if ((spec.containers ?? []).length === 0) throw problem('has no containers');
  for (const container of [...(spec.containers ?? []), ...(spec.initContainers ?? [])]) {
    for (const name of ['command', 'args'] as const) {
      const list: unknown = container[name] ?? [];
      const isTexts = Array.isArray(list) && list.every((item) => typeof item === 'string');
      if (!isTexts) throw problem(`container ${container.name}: ${name} is not a list of strings`);
    }
    for (const variable of container.env ?? []) {
      if (variable.value !== undefined && typeof variable.value !== 'string')
        throw problem(`container ${container.name}: variable ${variable.name} is not a string`);
    }
    if (container.image !== undefined && typeof container.image !== 'string')
      throw problem(`container ${container.name}: image is not a string`);
  }
}
