import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { Daemon } from '@sealpod/processes';
import type { ClusterAddresses } from './addresses.ts';
import { type ClusterLayout, clusterLayout } from './layout.ts';

/** What is written down about a running cluster. */
export interface ClusterState {
  readonly programs: string;
  readonly addresses: ClusterAddresses;
  readonly kubeconfig: string;
  readonly containerdSocket: string;
  /** containerd's configuration file; it imports `conf.d/*.toml` beside it. */
  readonly containerdConfiguration: string;
  /** `host:port` of the cluster's registry: plain HTTP, on the bridge of the pods. */
  readonly registry: string;
  readonly daemons: readonly Daemon[];
}

/** The recorded state, or undefined where no cluster was started below that folder. */
export function readClusterState(directory: string): ClusterState | undefined {
  return readState(clusterLayout(directory));
}

/** The recorded state of a layout, or undefined where there is none. */
export function readState(layout: ClusterLayout): ClusterState | undefined {
  if (!existsSync(layout.stateFile)) return undefined;
  return JSON.parse(readFileSync(layout.stateFile, 'utf8')) as ClusterState;
}

/** Writes it in one step. */
export function writeState(layout: ClusterLayout, state: ClusterState): void {
  const temporary = `${layout.stateFile}.new`;
  writeFileSync(temporary, `${JSON.stringify(state, null, 2)}\n`);
  chmodSync(temporary, 0o600);
  renameSync(temporary, layout.stateFile);
}
