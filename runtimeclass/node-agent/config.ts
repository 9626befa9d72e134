import { isAbsolute, join, normalize } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  type JsonValue,
  optionalMember,
  parseJson,
} from '@sealpod/protocol/json';

/** How containerd is made to read its configuration again: its systemd unit, or a program and its arguments on the host. */
export type ContainerdRestart = { readonly systemd: string } | { readonly command: readonly string[] };

/**
 * The node agent's configuration file (JSON). Every member has a default. Paths are those of the host, without
 * `hostRoot`.
 */
export interface NodeAgentConfig {
  /** Where the host's root is mounted for the agent; `/` where it runs on the host itself. */
  readonly hostRoot: string;
  /** What is to be placed on the host, in the agent's own file system. */
  readonly payload: string;
  /** Programs on the host: `versions/<digest>`, and `current`, a link to one of them. */
  readonly prefix: string;
  /** Configuration of shim, snapshotter and adaptor. */
  readonly configDirectory: string;
  /** What has to outlive the machine: journal, snapshots, authority of software TPMs. */
  readonly stateDirectory: string;
  /** Sockets and the pods' folders; short, since paths of unix sockets are limited to 107 bytes. */
  readonly runDirectory: string;
  readonly containerd: {
    readonly configuration: string;
    readonly socket: string;
    /** Program that is asked for its version and to check a configuration: a path or a name on the host's PATH. */
    readonly program: string;
    readonly restart: ContainerdRestart;
    /** How long containerd may take until its CRI serves again. */
    readonly readyTimeoutSeconds: number;
  };
  /**
   * Who keeps snapshotter and adaptor running: units of systemd, or the agent itself; `auto` takes systemd where the
   * host was booted with it.
   */
  readonly services: 'auto' | 'systemd' | 'agent';
  /**
   * Whose namespaces are the host's: those of process 1, or of the containerd with this configuration where process 1
   * may not be looked into; `auto` tries both.
   */
  readonly hostProcess: 'auto' | 'init' | 'containerd';
  readonly adaptor: {
    readonly defaults: { readonly vcpus: number; readonly memoryMiB: number };
    readonly limits: { readonly vcpus: number; readonly memoryMiB: number; readonly sandboxes: number };
    readonly startTimeoutMs: number;
    readonly logLevel: string;
    /**
     * Name of the adaptor's provider and its options. For `qemu` images, firmware and TPM authority are those that the
     * agent places, where the options do not say otherwise; `defaultImage` is a folder of `imagesDirectory`.
     */
    readonly provider: { readonly name: string; readonly [option: string]: JsonValue };
  };
  /** Members of the shim's configuration that differ from its defaults. */
  readonly shim: JsonObject;
  /** The extended resource that each pod of the runtime class takes one of, and how many this node has. */
  readonly capacity: { readonly resource: string; readonly count: number };
  /** Label of nodes that can run pods of the runtime class: `true` while everything serves, absent otherwise. */
  readonly nodeLabel: string;
  readonly health: { readonly address: string; readonly port: number };
  /** Seconds between two looks at whether everything is as it should be. */
  readonly intervalSeconds: number;
  readonly logLevel: string;
}

const code = 'USAGE';
const maxConfigBytes = 1 << 20;
/** sockaddr_un holds 107 bytes and a closing NUL; below the folder comes `/pods/<64 digits>/vm/agent.sock`. */
const maxRunDirectoryBytes = 107 - '/pods//vm/agent.sock'.length - 64;

const defaults: NodeAgentConfig = {
  hostRoot: '/host',
  payload: '/opt/sealpod',
  prefix: '/opt/sealpod',
  configDirectory: '/etc/sealpod',
  stateDirectory: '/var/lib/sealpod',
  runDirectory: '/run/sealpod',
  containerd: {
    configuration: '/etc/containerd/config.toml',
    socket: '/run/containerd/containerd.sock',
    program: 'containerd',
    restart: { systemd: 'containerd' },
    readyTimeoutSeconds: 120,
  },
  services: 'auto',
  hostProcess: 'auto',
  adaptor: {
    defaults: { vcpus: 1, memoryMiB: 512 },
    limits: { vcpus: 32, memoryMiB: 65_536, sandboxes: 100 },
    startTimeoutMs: 300_000,
    logLevel: 'info',
    provider: { name: 'qemu' },
  },
  shim: {},
  capacity: { resource: 'sealpod.io/vm', count: 10 },
  nodeLabel: 'sealpod.io/runtime',
  health: { address: '0.0.0.0', port: 9440 },
  intervalSeconds: 10,
  logLevel: 'info',
};

/** Parses and checks a configuration file. @throws SealpodError USAGE, naming the member */
export function parseNodeAgentConfig(text: string, source: string): NodeAgentConfig {
  const what = `configuration ${source}`;
  const document = new Section(parseJson(text, { maxSize: maxConfigBytes, what, code }), what, Object.keys(defaults));
  const containerd = document.section('containerd', Object.keys(defaults.containerd));
  const adaptor = document.section('adaptor', Object.keys(defaults.adaptor));
  const capacity = document.section('capacity', Object.keys(defaults.capacity));
  const health = document.section('health', Object.keys(defaults.health));
  const adaptorDefaults = adaptor.section('defaults', Object.keys(defaults.adaptor.defaults));
  const limits = adaptor.section('limits', Object.keys(defaults.adaptor.limits));
  const paths = ['hostRoot', 'payload', 'prefix', 'configDirectory', 'stateDirectory', 'runDirectory'] as const;
  const path = Object.fromEntries(paths.map((name) => [name, document.path(name, defaults[name])])) as Record<
    (typeof paths)[number],
    string
  >;
  if (Buffer.byteLength(path.runDirectory) > maxRunDirectoryBytes)
    throw document.refuse(
      'runDirectory',
      `must have at most ${maxRunDirectoryBytes} bytes: it is part of socket paths`,
    );
  return {
    ...path,
    containerd: {
      configuration: containerd.path('configuration', defaults.containerd.configuration),
      socket: containerd.path('socket', defaults.containerd.socket),
      program: containerd.text('program', defaults.containerd.program),
      restart: restartOf(containerd),
      readyTimeoutSeconds: containerd.count('readyTimeoutSeconds', defaults.containerd.readyTimeoutSeconds),
    },
    services: document.choice('services', ['auto', 'systemd', 'agent'], defaults.services),
    hostProcess: document.choice('hostProcess', ['auto', 'init', 'containerd'], defaults.hostProcess),
    adaptor: {
      defaults: adaptorDefaults.counts(defaults.adaptor.defaults),
      limits: limits.counts(defaults.adaptor.limits),
      startTimeoutMs: adaptor.count('startTimeoutMs', defaults.adaptor.startTimeoutMs),
      logLevel: adaptor.choice('logLevel', logLevels, 'info'),
      provider: providerOf(adaptor),
    },
    shim: asJsonObject(document.member('shim') ?? {}, `${what}: shim`, code),
    capacity: {
      resource: qualifiedName(capacity.text('resource', defaults.capacity.resource), capacity, 'resource'),
      count: capacity.count('count', defaults.capacity.count, 0),
    },
    nodeLabel: qualifiedName(document.text('nodeLabel', defaults.nodeLabel), document, 'nodeLabel'),
    health: {
      address: health.text('address', defaults.health.address),
      port: health.count('port', defaults.health.port),
    },
    intervalSeconds: document.count('intervalSeconds', defaults.intervalSeconds),
    logLevel: document.choice('logLevel', logLevels, 'info'),
  };
}

const logLevels = ['debug', 'info', 'warn', 'error'] as const;

/** One object of the file. Members that are not known are refused: a misspelt setting would otherwise be none. */
class Section {
  readonly #object: JsonObject;
  readonly #what: string;

  constructor(value: JsonValue, what: string, known: readonly string[]) {
    this.#object = asJsonObject(value, what, code);
    this.#what = what;
    const unknown = Object.keys(this.#object).find((name) => !known.includes(name));
    if (unknown !== undefined) throw this.refuse(unknown, `is unknown; known are ${known.join(', ')}`);
  }

  member(name: string): JsonValue | undefined {
    return optionalMember(this.#object, name);
  }

  refuse(name: string, problem: string): SealpodError {
    return new SealpodError(code, `${this.#what}: "${name}" ${problem}`);
  }

  section(name: string, known: readonly string[]): Section {
    return new Section(this.member(name) ?? {}, `${this.#what}: ${name}`, known);
  }

  text(name: string, fallback: string): string {
    const value = asJsonText(this.member(name) ?? fallback, `${this.#what}: ${name}`, code);
    if (value === '') throw this.refuse(name, 'is empty');
    return value;
  }

  path(name: string, fallback: string): string {
    const value = this.text(name, fallback);
    if (!isAbsolute(value) || join(normalize(value), '.') !== value)
      throw this.refuse(name, `must be an absolute path without . and .., not ${JSON.stringify(value)}`);
    return value;
  }

  choice<T extends string>(name: string, choices: readonly T[], fallback: T): T {
    const value = this.text(name, fallback);
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    throw this.refuse(name, `must be one of ${choices.join(', ')}`);
  }

  count(name: string, fallback: number, least = 1): number {
    const value = this.member(name) ?? fallback;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least) return value;
    throw this.refuse(name, `must be an integer of at least ${least}`);
  }

  counts<K extends string>(fallback: Readonly<Record<K, number>>): Record<K, number> {
    const entries = Object.entries<number>(fallback).map(([name, value]) => [name, this.count(name, value)]);
    return Object.fromEntries(entries) as Record<K, number>;
  }
}

function restartOf(containerd: Section): ContainerdRestart {
  if (containerd.member('restart') === undefined) return defaults.containerd.restart;
  const restart = containerd.section('restart', ['systemd', 'command']);
  const command = restart.member('command');
  const unit = restart.member('systemd');
  if (command === undefined)
    return unit === undefined ? defaults.containerd.restart : { systemd: restart.text('systemd', '') };
  if (unit !== undefined || !Array.isArray(command) || command.length === 0)
    throw restart.refuse('command', 'must be a list of a program and its arguments, and stands alone');
  const words = command.map((word) => asJsonText(word, 'containerd.restart.command', code));
  if (!isAbsolute(words[0] ?? '')) throw restart.refuse('command', 'must begin with an absolute path');
  return { command: words };
}

function providerOf(adaptor: Section): NodeAgentConfig['adaptor']['provider'] {
  const value = adaptor.member('provider');
  if (value === undefined) return defaults.adaptor.provider;
  const object = asJsonObject(value, 'adaptor.provider', code);
  return { ...object, name: asJsonText(optionalMember(object, 'name'), 'adaptor.provider.name', code) };
}

/** `prefix/name`, as Kubernetes wants labels and extended resources. */
function qualifiedName(value: string, section: Section, member: string): string {
  if (/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/.test(value)) return value;
  throw section.refuse(member, 'must be a qualified name such as sealpod.io/vm');
}
