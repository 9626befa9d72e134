import { dirname, isAbsolute, join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

/** The adaptor's configuration file (JSON). Every member but `provider` has a default. */
export interface AdaptorConfig {
  /** Unix socket of the hypervisor service. */
  readonly socket: string;
  /** Unix socket of the status and the metrics (HTTP); by default `status.sock` beside the other. */
  readonly statusSocket: string;
  /** Parent of the sandboxes' directories, which hold the agent sockets. */
  readonly podsDirectory: string;
  /** Where the journal is kept; has to outlive the process, not the machine. */
  readonly stateDirectory: string;
  /** For a pod that does not ask for anything. */
  readonly defaults: { readonly vcpus: number; readonly memoryMiB: number };
  /** What a pod may ask for at most, and how many sandboxes there may be. */
  readonly limits: { readonly vcpus: number; readonly memoryMiB: number; readonly sandboxes: number };
  /** Milliseconds from StartVM until the guest agent has to answer; below the shim's own limit of 600 s. */
  readonly startTimeoutMs: number;
  /**
   * How often what the journal says is compared with what exists, and how long a sandbox has to be without a network
   * namespace and without a client before it counts as forsaken; milliseconds.
   */
  readonly reconcile: { readonly intervalMs: number; readonly orphanGraceMs: number };
  readonly logLevel: string;
  /** Name of the provider and its own options. */
  readonly provider: { readonly name: string; readonly [option: string]: unknown };
}

const defaults: Omit<AdaptorConfig, 'provider' | 'statusSocket'> = {
  socket: '/run/peerpod/hypervisor.sock',
  podsDirectory: '/run/peerpod/pods',
  stateDirectory: '/run/peerpod/state',
  defaults: { vcpus: 1, memoryMiB: 512 },
  limits: { vcpus: 32, memoryMiB: 65_536, sandboxes: 100 },
  startTimeoutMs: 300_000,
  reconcile: { intervalMs: 5000, orphanGraceMs: 60_000 },
  logLevel: 'info',
};

/** Parses and checks a configuration file. Throws USAGE, naming the member. */
export function parseConfig(text: string, source: string): AdaptorConfig {
  const refuse = (message: string, cause?: unknown) =>
    new SealpodError('USAGE', `configuration ${source}: ${message}`, cause === undefined ? {} : { cause });
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (cause) {
    throw refuse('is not JSON', cause);
  }
  if (!isRecord(given)) throw refuse('is not a JSON object');
  for (const name of Object.keys(given)) {
    if (!['provider', 'statusSocket'].includes(name) && !Object.hasOwn(defaults, name))
      throw refuse(`unknown member "${name}"`);
  }
  type PathName = 'socket' | 'statusSocket' | 'podsDirectory' | 'stateDirectory';
  const path = (name: PathName, fallback: string): string => {
    const value = given[name] ?? fallback;
    if (typeof value !== 'string' || !isAbsolute(value)) throw refuse(`"${name}" must be an absolute path`);
    return value;
  };
  const count = (value: unknown, name: string): number => {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1)
      throw refuse(`"${name}" must be a positive integer`);
    return value;
  };
  const counts = <K extends string>(name: string, fallback: Readonly<Record<K, number>>): Record<K, number> => {
    const section = given[name] ?? {};
    if (!isRecord(section)) throw refuse(`"${name}" must be an object`);
    for (const member of Object.keys(section))
      if (!Object.hasOwn(fallback, member)) throw refuse(`unknown member "${name}.${member}"`);
    const entries = Object.entries<number>(fallback).map(([member, value]) => [
      member,
      count(section[member] ?? value, `${name}.${member}`),
    ]);
    return Object.fromEntries(entries) as Record<K, number>;
  };
  const { provider } = given;
  if (!isRecord(provider) || typeof provider['name'] !== 'string') throw refuse('"provider.name" is missing');
  const logLevel = given['logLevel'] ?? defaults.logLevel;
  if (typeof logLevel !== 'string' || !['debug', 'info', 'warn', 'error'].includes(logLevel)) {
    throw refuse('"logLevel" must be debug, info, warn or error');
  }
  const socket = path('socket', defaults.socket);
  return {
    socket,
    statusSocket: path('statusSocket', join(dirname(socket), 'status.sock')),
    podsDirectory: path('podsDirectory', defaults.podsDirectory),
    stateDirectory: path('stateDirectory', defaults.stateDirectory),
    defaults: counts('defaults', defaults.defaults),
    limits: counts('limits', defaults.limits),
    startTimeoutMs: count(given['startTimeoutMs'] ?? defaults.startTimeoutMs, 'startTimeoutMs'),
    reconcile: counts('reconcile', defaults.reconcile),
    logLevel,
    provider: { ...provider, name: provider['name'] },
  };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
