import { SealpodError } from '@sealpod/protocol/errors';
import { literal } from './names.ts';
import type { ConfigMap, Container, EnvironmentVariable, ObjectMeta, Secret } from './types.ts';

/** What a value will be: exactly this, or what a regular expression matches (`$(name)`, `$(namespace)`, `$(uid)` of the pod). */
export type Expected = { readonly equals: string } | { readonly pattern: string };

/** Variables that may be there: by a pattern for their names. */
export interface VariableRule {
  readonly name: string;
  readonly value: Expected;
}

/** The environment of a container: what is there for certain, and what may be. */
export interface Environment {
  readonly variables: ReadonlyMap<string, Expected>;
  readonly optional: readonly VariableRule[];
}

/** ConfigMaps and Secrets that the owner of the pod gave along. */
export interface KnownConfiguration {
  readonly configMaps: ReadonlyMap<string, ConfigMap>;
  readonly secrets: ReadonlyMap<string, Secret>;
}

const anything: Expected = { pattern: '^[\\s\\S]*$' };
const address = '[0-9a-fA-F.:]{2,45}';
const dnsName = '[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?';
/** What a sealed secret begins with: it is public. */
export const sealedPrefix = 'sealed.';

/**
 * The variables a kubelet gives a container: `envFrom`, then `env` in order, with `$(NAME)` of earlier ones put in. Those
 * of Services, which the cluster knows, are left to the rules of the policy. Secrets are not written down, for a policy is public: their values may be anything, unless they are
 * sealed, which is public and exact.
 *
 * @throws SealpodError USAGE for a ConfigMap, or a Secret of unknown names, that was not given
 */
export function containerEnvironment(
  container: Container,
  metadata: ObjectMeta,
  known: KnownConfiguration,
): Environment {
  const variables = new Map<string, Expected>();
  const optional: VariableRule[] = [];
  for (const source of container.envFrom ?? []) {
    for (const [name, value] of sourceEntries(source, known)) variables.set(`${source.prefix ?? ''}${name}`, value);
  }
  const own = new Map<string, Expected>();
  for (const variable of container.env ?? []) {
    const value = variableValue(variable, own, metadata, known);
    if (value === undefined) {
      optional.push({ name: `^${literal(variable.name)}$`, value: anything });
      continue;
    }
    own.set(variable.name, value);
    variables.set(variable.name, value);
  }
  return { variables, optional };
}

function sourceEntries(
  source: NonNullable<Container['envFrom']>[number],
  { configMaps, secrets }: KnownConfiguration,
): (readonly [string, Expected])[] {
  const { configMapRef, secretRef } = source;
  if (configMapRef !== undefined) {
    const map = configMaps.get(configMapRef.name ?? '');
    if (map === undefined && configMapRef.optional === true) return [];
    if (map === undefined) throw notGiven('ConfigMap', configMapRef.name);
    return Object.entries(map.data ?? {}).map(([name, value]) => [name, { equals: value }]);
  }
  if (secretRef === undefined) return [];
  const secret = secrets.get(secretRef.name ?? '');
  if (secret === undefined && secretRef.optional === true) return [];
  if (secret === undefined) throw notGiven('Secret', secretRef.name);
  const names = new Set([...Object.keys(secret.data ?? {}), ...Object.keys(secret.stringData ?? {})]);
  return [...names].map((name) => [name, secretValue(secret, name)]);
}

/** Undefined where nobody can say whether the variable will be there. */
function variableValue(
  variable: EnvironmentVariable,
  earlier: ReadonlyMap<string, Expected>,
  metadata: ObjectMeta,
  { configMaps, secrets }: KnownConfiguration,
): Expected | undefined {
  const from = variable.valueFrom;
  if (from === undefined) return expand(variable.value ?? '', earlier);
  if (from.configMapKeyRef !== undefined) {
    const { name, key, optional } = from.configMapKeyRef;
    const value = configMaps.get(name ?? '')?.data?.[key];
    if (value !== undefined) return { equals: value };
    if (optional === true) return undefined;
    throw notGiven('ConfigMap', `${name ?? ''} with key ${key}`);
  }
  if (from.secretKeyRef !== undefined) {
    if (from.secretKeyRef.optional === true) return undefined;
    const secret = secrets.get(from.secretKeyRef.name ?? '');
    return secret === undefined ? anything : secretValue(secret, from.secretKeyRef.key);
  }
  if (from.fieldRef !== undefined) return fieldValue(from.fieldRef.fieldPath, metadata);
  if (from.resourceFieldRef !== undefined) return { pattern: '^[0-9]{1,20}$' };
  throw new SealpodError('UNSUPPORTED', `variable ${variable.name} takes its value from what a policy cannot know`, {
    expected: 'value, configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef',
    actual: Object.keys(from).join(', '),
  });
}

function secretValue(secret: Secret, key: string): Expected {
  const encoded = secret.data?.[key];
  const value =
    secret.stringData?.[key] ?? (encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString('utf8'));
  return value.startsWith(sealedPrefix) ? { equals: value } : anything;
}

function fieldValue(path: string, metadata: ObjectMeta): Expected {
  const subscript = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (subscript !== null) {
    const value = metadata[subscript[1] as 'labels' | 'annotations']?.[subscript[2] ?? ''];
    return value === undefined ? anything : { equals: value };
  }
  switch (path) {
    case 'metadata.name':
      return { pattern: '^$(name)$' };
    case 'metadata.namespace':
      return { pattern: '^$(namespace)$' };
    case 'metadata.uid':
      return { pattern: '^$(uid)$' };
    case 'status.podIP':
    case 'status.hostIP':
      return { pattern: `^(${address})?$` };
    case 'status.podIPs':
    case 'status.hostIPs':
      return { pattern: `^(${address}(,${address})?)?$` };
    case 'spec.nodeName':
    case 'spec.serviceAccountName':
      return { pattern: `^${dnsName}$` };
    default:
      throw new SealpodError('UNSUPPORTED', `field ${path} cannot be used as a variable`);
  }
}

/**
 * Puts the values of `$(NAME)` into a text (Kubernetes' expansion): `$$` is a `$`, and a name that is not known stays as
 * it is. Where a value is known by a pattern only, so is the result.
 */
export function expand(text: string, values: ReadonlyMap<string, Expected>): Expected {
  const parts = text.split(/(\$\$|\$\([^)]*\))/);
  const resolved = parts.map((part): Expected => {
    if (part === '$$') return { equals: '$' };
    const name = /^\$\((.*)\)$/.exec(part)?.[1];
    return (name === undefined ? undefined : values.get(name)) ?? { equals: part };
  });
  if (resolved.every((part) => 'equals' in part)) return { equals: resolved.map((part) => part.equals).join('') };
  const patterns = resolved.map((part) =>
    'equals' in part ? literal(part.equals) : `(${part.pattern.replace(/^\^/, '').replace(/\$$/, '')})`,
  );
  return { pattern: `^${patterns.join('')}$` };
}

function notGiven(kind: string, what = ''): SealpodError {
  return new SealpodError('USAGE', `${kind} ${what} is not known`, {
    expected: 'each ConfigMap and Secret that variables come from, in the same input or by --config',
    fix: `give the manifest of the ${kind} along with --config`,
  });
}
