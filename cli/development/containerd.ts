import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type Daemon, startDaemon } from '@sealpod/processes';
import type { ShimBundle } from '@sealpod/runtimeclass/bundle';
import { connectCri } from '@sealpod/runtimeclass/cri';
import { developmentContainerdConfig } from '@sealpod/runtimeclass/installer';
import type { Layout } from './layout.ts';
import { containerdRelease, writeRegistryHosts, writeShimConfiguration } from './runtime.ts';

/** A running daemon and the socket it serves. */
export interface ServingDaemon {
  readonly daemon: Daemon;
  readonly socket: string;
}

/** Starts the snapshotter that spares the host the layers of images which only the guest may read. */
export async function startSnapshotter(layout: Layout, runtime: ShimBundle): Promise<ServingDaemon> {
  const socket = join(layout.run, 'snapshotter.sock');
  const file = join(layout.home, 'snapshotter.json');
  const root = join(layout.home, 'snapshots');
  mkdirSync(root, { recursive: true, mode: 0o700 });
  writeFileSync(file, `${JSON.stringify({ socket, root })}\n`, { mode: 0o600 });
  const daemon = await startDaemon({
    name: 'snapshotter',
    command: process.execPath,
    args: [runtime.snapshotterPath, '--config', file],
    logDirectory: layout.logs,
    ready: () => accepts(socket),
  });
  return { daemon, socket };
}

/** What containerd is connected with. */
export interface ContainerdNeighbours {
  readonly registry: string;
  readonly sandboxImage: string;
  readonly snapshotterSocket: string;
  readonly adaptorSocket: string;
  readonly cniConfigurationDirectory: string;
}

/** Starts a containerd of the environment's own: own root, state and sockets, beside one that the system may run. */
export async function startContainerd(
  layout: Layout,
  runtime: ShimBundle,
  neighbours: ContainerdNeighbours,
): Promise<ServingDaemon> {
  const socket = join(layout.run, 'containerd.sock');
  const file = join(layout.home, 'containerd.toml');
  const text = developmentContainerdConfig({
    root: join(layout.home, 'containerd'),
    state: join(layout.run, 'containerd'),
    socket,
    cniConfigurationDirectory: neighbours.cniConfigurationDirectory,
    sandboxImage: neighbours.sandboxImage,
    release: containerdRelease(),
    shimPath: runtime.shimPath,
    runtimeConfigPath: writeShimConfiguration(layout, neighbours.adaptorSocket),
    snapshotterSocket: neighbours.snapshotterSocket,
    registryHostsDirectory: writeRegistryHosts(layout, neighbours.registry),
  });
  writeFileSync(file, text, { mode: 0o600 });
  const cri = connectCri(socket);
  try {
    const daemon = await startDaemon({
      name: 'containerd',
      command: 'containerd',
      args: ['--config', file],
      logDirectory: layout.logs,
      ready: async () =>
        (await accepts(socket)) &&
        cri.runtime.version({}, { timeoutMs: 2000 }).then(
          () => true,
          () => false,
        ),
    });
    return { daemon, socket };
  } finally {
    cri.close();
  }
}

/** Whether a unix socket is served. */
export function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
