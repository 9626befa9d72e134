import { readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import { parse as parseToml } from 'smol-toml';

/** What an operator can set for the shim, in the file that the runtime options' `ConfigPath` names. */
export interface ShimConfiguration {
  /** Unix socket of the adaptor's `hypervisor.Hypervisor` service. */
  readonly hypervisorSocket: string;
  /** Longest time StartVM may take, in seconds. */
  readonly hypervisorTimeout: number;
  /** Longest time CreateContainer may take in the guest, image pull included, in seconds. */
  readonly createContainerTimeout: number;
  /** Longest time other calls to the guest may take, in seconds. */
  readonly agentTimeout: number;
  /** How long a lost connection to the guest is dialled again while the adaptor is away, in seconds. */
  readonly reconnectTimeout: number;
  /** Seconds between two health checks of the guest. */
  readonly healthCheckInterval: number;
  /** Seconds after which a health check without answer counts as failed. */
  readonly healthCheckTimeout: number;
  /** Do not send the host's seccomp profile: upstream's generated policies refuse one. */
  readonly disableGuestSeccomp: boolean;
  /** Suffixes of `io.katacontainers.config.hypervisor.` that pods may set. Others are refused. */
  readonly enabledAnnotations: readonly string[];
  /** Values for annotations that a pod does not set, e.g. `{"default_vcpus": "2", "default_memory": "2048"}`. */
  readonly defaults: Readonly<Record<string, string>>;
  /** Most bytes copied into the guest for one volume (ConfigMap, Secret, hostPath …). */
  readonly copyLimitBytes: number;
  /** Most files and directories copied into the guest for one volume. */
  readonly copyLimitEntries: number;
  readonly debug: boolean;
}

/** Settings where no configuration file says otherwise. Durations are those of Kata's remote hypervisor, where it has them. */
export const defaultConfiguration: ShimConfiguration = {
  hypervisorSocket: '/run/peerpod/hypervisor.sock',
  hypervisorTimeout: 600,
  createContainerTimeout: 600,
  agentTimeout: 60,
  reconnectTimeout: 30,
  healthCheckInterval: 5,
  healthCheckTimeout: 30,
  disableGuestSeccomp: true,
  enabledAnnotations: [
    'machine_type',
    'default_vcpus',
    'default_memory',
    'default_gpus',
    'default_gpu_model',
    'cc_init_data',
  ],
  defaults: {},
  copyLimitBytes: 64 * 1024 * 1024,
  copyLimitEntries: 4096,
  debug: false,
};

function refuse(path: string, message: string, cause?: unknown): SealpodError {
  return new SealpodError('REQUEST_FORMAT', `shim configuration ${path}: ${message}`, { source: path, cause });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether `value` may stand where `model` stands: the same shape, and for numbers finite and not negative. */
function fits(value: unknown, model: unknown): boolean {
  if (Array.isArray(model)) return Array.isArray(value) && value.every((item) => typeof item === 'string');
  if (isRecord(model)) return isRecord(value) && Object.values(value).every((item) => typeof item === 'string');
  if (typeof model === 'number') return typeof value === 'number' && Number.isFinite(value) && value > 0;
  return typeof value === typeof model;
}

/**
 * Reads JSON or TOML text into settings over the defaults.
 *
 * @throws SealpodError REQUEST_FORMAT for text that does not parse, an unknown key or a value of another type.
 */
export function parseConfiguration(text: string, path: string): ShimConfiguration {
  let values: unknown;
  try {
    values = text.trimStart().startsWith('{') ? JSON.parse(text) : parseToml(text);
  } catch (cause) {
    throw refuse(path, `neither JSON nor TOML: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
  if (!isRecord(values)) throw refuse(path, 'expected a table of settings');
  for (const [key, value] of Object.entries(values)) {
    if (!Object.hasOwn(defaultConfiguration, key)) throw refuse(path, `unknown setting ${JSON.stringify(key)}`);
    const model = defaultConfiguration[key as keyof ShimConfiguration];
    if (!fits(value, model))
      throw refuse(path, `${key} has the wrong type, expected one like ${JSON.stringify(model)}`);
  }
  return { ...defaultConfiguration, ...(values as Partial<ShimConfiguration>) };
}

/** The settings in the file at `path`; the defaults where the runtime options name none (`''`). */
export function readConfiguration(path: string): ShimConfiguration {
  if (path === '') return defaultConfiguration;
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw refuse(path, 'cannot be read', cause);
  }
  return parseConfiguration(text, path);
}
