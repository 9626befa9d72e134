import { isAbsolute } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

/** The driver's configuration file (JSON). All members are required but `runtimeHandlers`. */
export interface DriverConfig {
  /** Name of the CSIDriver object, and the provisioner of its StorageClasses. */
  readonly driver: string;
  /** Name of the Node object. */
  readonly node: string;
  /** Folder of the volumes' files. */
  readonly directory: string;
  /** The kubelet's root folder. */
  readonly kubeletDirectory: string;
  readonly kubeconfig: string;
  /** Folder where direct volumes are left for the runtime. */
  readonly directVolumes: string;
  /** Handlers of RuntimeClasses whose pods get a volume unmounted. */
  readonly runtimeHandlers: readonly string[];
}

const defaultHandlers = ['sealpod', 'sealpod-peer'];

/** Parses and checks a configuration file. @throws SealpodError USAGE, naming the member */
export function parseDriverConfig(text: string, source: string): DriverConfig {
  const refuse = (message: string, cause?: unknown): SealpodError =>
    new SealpodError('USAGE', `configuration ${source}: ${message}`, { cause });
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (cause) {
    throw refuse('is not JSON', cause);
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) throw refuse('is not a JSON object');
  const members = given as Record<string, unknown>;
  const name = (member: 'driver' | 'node'): string => {
    const value = members[member];
    if (typeof value === 'string' && /^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/.test(value)) return value;
    throw refuse(`"${member}" must be a DNS name of at most 63 characters`);
  };
  const path = (member: 'directory' | 'kubeletDirectory' | 'kubeconfig' | 'directVolumes'): string => {
    const value = members[member];
    if (typeof value === 'string' && isAbsolute(value)) return value;
    throw refuse(`"${member}" must be an absolute path`);
  };
  const handlers: unknown = members['runtimeHandlers'] ?? defaultHandlers;
  if (!Array.isArray(handlers) || !handlers.every((handler) => typeof handler === 'string'))
    throw refuse('"runtimeHandlers" must be a list of names');
  return {
    driver: name('driver'),
    node: name('node'),
    directory: path('directory'),
    kubeletDirectory: path('kubeletDirectory'),
    kubeconfig: path('kubeconfig'),
    directVolumes: path('directVolumes'),
    runtimeHandlers: handlers as string[],
  };
}
