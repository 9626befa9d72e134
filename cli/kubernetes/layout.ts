import { join } from 'node:path';
import type { Layout } from '../development/layout.ts';

/** Folder of the development cluster that belongs to an environment. */
export function clusterDirectory(layout: Layout): string {
  return join(layout.home, 'cluster');
}

/** Folder of the runtime in that cluster: programs, configuration, snapshots. Removed with the cluster. */
export function clusterRuntimeDirectory(layout: Layout): string {
  return join(clusterDirectory(layout), 'runtime');
}
