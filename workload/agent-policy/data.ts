import type { Expected, VariableRule } from '../kubernetes/environment.ts';

/** What the agent policy of one pod says: `policy_data` of rules.rego. Patterns are regular expressions of Rust's regex. */
export interface PolicyData {
  readonly pod: {
    /** Patterns. */
    readonly name: string;
    readonly namespace: string;
    readonly hostname: string;
    /** Values that each kernel setting of the pod may have. */
    readonly sysctls: Readonly<Record<string, readonly string[]>>;
    readonly fs_group: number | null;
    /** Whether variables of all Services may be there, or only Kubernetes' own. */
    readonly service_links: boolean;
    /** `restricted`: Kubernetes' Pod Security Standard is checked once more by the guest. */
    readonly security: 'restricted' | null;
  };
  readonly containers: Readonly<Record<string, ContainerData>>;
  /** Volumes that are copied into the guest. */
  readonly volumes: readonly VolumeData[];
  readonly allow: { readonly exec: boolean; readonly logs: boolean };
  readonly masked_paths: readonly string[];
  readonly readonly_paths: readonly string[];
}

export interface ContainerData {
  /** Reference by digest. */
  readonly image: string;
  readonly args: readonly Expected[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, Expected>>;
  /** Variables that may be there beside those of `env`, and beside those of Services. */
  readonly variables: readonly VariableRule[];
  readonly user: { readonly uid: number; readonly gid: number; readonly additional_gids: readonly number[] };
  readonly terminal: boolean;
  readonly stdin: boolean;
  readonly readonly_root: boolean;
  readonly no_new_privileges: boolean;
  /** Sorted. */
  readonly capabilities: readonly string[];
  readonly mounts: Readonly<Record<string, MountData>>;
  /** Empty directories, by mount point. */
  readonly storages: Readonly<Record<string, StorageData>>;
  /** Persistent volumes, by their path in the container. */
  readonly volumes: Readonly<Record<string, PersistentVolumeData>>;
  /** Commands of probes and hooks. */
  readonly commands: readonly (readonly Expected[])[];
  /** Names of the containers that have to have been started before. */
  readonly after: readonly string[];
}

export interface MountData {
  /** `bind` of something in the guest; `kernel`: a file system of that name. */
  readonly kind: 'bind' | 'kernel';
  /** Pattern without anchors; `$(copy)` stands for the path of this container's copies, up to the name of the source. */
  readonly source: string;
  readonly readonly: boolean;
  readonly required: boolean;
}

export interface StorageData {
  readonly driver: string;
  readonly source: string;
  readonly fstype: string;
}

export interface PersistentVolumeData {
  /** A file system that is mounted, or the raw device. */
  readonly kind: 'filesystem' | 'block';
  /** Resource of the key broker that opens it, with `$(name)` and `$(namespace)` of the pod; null: it is not encrypted. */
  readonly key: string | null;
}

export interface VolumeData {
  /** Pattern for the name of its folder or file on the node. */
  readonly name: string;
  /** Its files by path, as far as they were known; null: anything. A file that is null may hold anything. */
  readonly files: Readonly<Record<string, FileData | null>> | null;
}

export interface FileData {
  readonly size: number;
  readonly sha256: string;
}

/** An object with its members in order: the API server sorts those of ConfigMaps and Secrets, and a policy must not change. */
export function sortedByName<T>(entries: Iterable<readonly [string, T]>): Record<string, T> {
  return Object.fromEntries([...entries].sort(([one], [other]) => (one < other ? -1 : 1)));
}
