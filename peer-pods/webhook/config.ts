import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  type JsonValue,
  optionalMember,
  parseJson,
  stringArrayMember,
} from '@sealpod/protocol/json';

/** How pods of one RuntimeClass are admitted. */
export interface RuntimeClassConfig {
  /** containerd's runtime handler of the class. */
  readonly handler: string;
  /** Extended resource of which each pod takes one, where a node can hold a number of machines only. */
  readonly extendedResource?: string;
  /** Take the containers' resources away, for machines that are not on the node (upstream's peer pods); costs the QoS class. */
  readonly removeResources: boolean;
  /** MiB that the guest needs beside the pod. */
  readonly guestMemoryMiB: number;
  /** Whether the overhead of the RuntimeClass is part of the machine. */
  readonly includeOverhead: boolean;
  /** Most that a machine may have, as the adaptor is configured. */
  readonly limits?: { readonly vcpus: number; readonly memoryMiB: number };
  readonly requireInitdata: boolean;
  readonly requireDigests: boolean;
  /** Settings of the machine that a pod may ask for, as the shim is configured. */
  readonly enabledAnnotations: readonly string[];
}

/** The webhook's configuration file (JSON). */
export interface WebhookConfig {
  readonly host: string;
  readonly port: number;
  /** PEM files; both are read again when they change. */
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly reloadIntervalMs: number;
  readonly logLevel: string;
  readonly runtimeClasses: ReadonlyMap<string, RuntimeClassConfig>;
  /** Given to pods of confidential namespaces that name no RuntimeClass; without it such pods are refused there. */
  readonly defaultRuntimeClass?: string;
}

const code = 'USAGE';
const maxConfigBytes = 1 << 20;
const defaultAnnotations = [
  'machine_type',
  'default_vcpus',
  'default_memory',
  'default_gpus',
  'default_gpu_model',
  'cc_init_data',
];
const members = [
  'host',
  'port',
  'certificateFile',
  'keyFile',
  'reloadIntervalMs',
  'logLevel',
  'runtimeClasses',
  'defaultRuntimeClass',
];
const classMembers = [
  'handler',
  'extendedResource',
  'removeResources',
  'guestMemoryMiB',
  'includeOverhead',
  'limits',
  'requireInitdata',
  'requireDigests',
  'enabledAnnotations',
];

/** Parses and checks a configuration file. @throws SealpodError USAGE, naming the member */
export function parseWebhookConfig(text: string, source: string): WebhookConfig {
  const what = `configuration ${source}`;
  const document = asJsonObject(parseJson(text, { maxSize: maxConfigBytes, what, code }), what, code);
  refuseUnknown(document, members, what);
  const classes = asJsonObject(optionalMember(document, 'runtimeClasses') ?? {}, `${what}: runtimeClasses`, code);
  const runtimeClasses = new Map(
    Object.entries(classes).map(([name, value]) => [name, runtimeClass(name, value, what)]),
  );
  if (runtimeClasses.size === 0) throw new SealpodError(code, `${what}: "runtimeClasses" names none`);
  const byDefault = optionalMember(document, 'defaultRuntimeClass');
  const defaultRuntimeClass = byDefault === undefined ? undefined : asJsonText(byDefault, 'defaultRuntimeClass', code);
  if (defaultRuntimeClass !== undefined && !runtimeClasses.has(defaultRuntimeClass)) {
    throw new SealpodError(code, `${what}: "defaultRuntimeClass" is none of "runtimeClasses"`, {
      actual: defaultRuntimeClass,
    });
  }
  return {
    ...(defaultRuntimeClass === undefined ? {} : { defaultRuntimeClass }),
    host: asJsonText(optionalMember(document, 'host') ?? '0.0.0.0', 'host', code),
    port: count(document, 'port', 8443, what),
    certificateFile: asJsonText(optionalMember(document, 'certificateFile'), `${what}: certificateFile`, code),
    keyFile: asJsonText(optionalMember(document, 'keyFile'), `${what}: keyFile`, code),
    reloadIntervalMs: count(document, 'reloadIntervalMs', 10_000, what),
    logLevel: asJsonText(optionalMember(document, 'logLevel') ?? 'info', 'logLevel', code),
    runtimeClasses,
  };
}

function runtimeClass(name: string, value: JsonValue, source: string): RuntimeClassConfig {
  const what = `${source}: runtimeClasses.${name}`;
  const object = asJsonObject(value, what, code);
  refuseUnknown(object, classMembers, what);
  const resource = optionalMember(object, 'extendedResource');
  const limits = optionalMember(object, 'limits');
  return {
    handler: asJsonText(optionalMember(object, 'handler') ?? name, `${what}.handler`, code),
    ...(resource === undefined ? {} : { extendedResource: asJsonText(resource, `${what}.extendedResource`, code) }),
    removeResources: flag(object, 'removeResources', false, what),
    guestMemoryMiB: count(object, 'guestMemoryMiB', 0, what),
    includeOverhead: flag(object, 'includeOverhead', true, what),
    ...(limits === undefined ? {} : { limits: limitsOf(asJsonObject(limits, `${what}.limits`, code), what) }),
    requireInitdata: flag(object, 'requireInitdata', false, what),
    requireDigests: flag(object, 'requireDigests', false, what),
    enabledAnnotations:
      optionalMember(object, 'enabledAnnotations') === undefined
        ? defaultAnnotations
        : stringArrayMember(object, 'enabledAnnotations', code),
  };
}

function limitsOf(limits: JsonObject, what: string): { vcpus: number; memoryMiB: number } {
  refuseUnknown(limits, ['vcpus', 'memoryMiB'], `${what}.limits`);
  const none = Number.MAX_SAFE_INTEGER;
  return { vcpus: count(limits, 'vcpus', none, what), memoryMiB: count(limits, 'memoryMiB', none, what) };
}

function flag(object: JsonObject, name: string, fallback: boolean, what: string): boolean {
  const value = optionalMember(object, name) ?? fallback;
  if (typeof value === 'boolean') return value;
  throw new SealpodError(code, `${what}: "${name}" must be true or false`);
}

function count(object: JsonObject, name: string, fallback: number, what: string): number {
  const value = optionalMember(object, name) ?? fallback;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new SealpodError(code, `${what}: "${name}" must be an integer that is not negative`);
}

function refuseUnknown(object: JsonObject, known: readonly string[], what: string): void {
  const unknown = Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new SealpodError(code, `${what}: unknown member "${unknown}"`);
}
