import { join, resolve } from 'node:path';

/** Where a development cluster keeps its files; all of it is the cluster's own. */
export interface ClusterLayout {
  /** Everything; 0700. Short, because containerd's socket path must stay below 108 bytes. */
  readonly directory: string;
  readonly pki: string;
  readonly logs: string;
  readonly stateFile: string;
  readonly containerdSocket: string;
  readonly containerdConfiguration: string;
  /** Folder whose `*.toml` containerd imports: where a runtime installer puts its fragment. */
  readonly containerdFragments: string;
  /** Folder of `<host:port>/hosts.toml`: how containerd speaks to registries. */
  readonly registryHosts: string;
}

/** The layout below `directory`. */
export function clusterLayout(directory: string): ClusterLayout {
  const path = resolve(directory);
  return {
    directory: path,
    pki: join(path, 'pki'),
    logs: join(path, 'logs'),
    stateFile: join(path, 'state.json'),
    containerdSocket: join(path, 'containerd.sock'),
    containerdConfiguration: join(path, 'containerd.toml'),
    containerdFragments: join(path, 'conf.d'),
    registryHosts: join(path, 'registries'),
  };
}
