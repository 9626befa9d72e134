import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ClusterState, readClusterState } from '@sealpod/cluster';
import { NodeInstallation, parseNodeAgentConfig, removeFromHost } from '@sealpod/runtimeclass/node-agent';
import type { Layout } from '../development/layout.ts';
import { clusterDirectory } from './layout.ts';

const cli = fileURLToPath(new URL('../main.ts', import.meta.url));

/** What the node agent has to know of this cluster's containerd, which is no service of systemd. */
function containerdSettings(layout: Layout, state: ClusterState) {
  return {
    configuration: state.containerdConfiguration,
    socket: state.containerdSocket,
    program: join(state.programs, 'containerd'),
    restart: { command: [join(clusterDirectory(layout), 'restart-containerd')] },
  };
}

/**
 * Writes what an installation from images needs in a development cluster: a program that restarts its containerd, for the
 * node agent, and values for the chart.
 *
 * @returns path of the values
 */
export function writeInstallationFiles(layout: Layout, state: ClusterState): string {
  const directory = clusterDirectory(layout);
  const quoted = [process.execPath, cli, '--home', layout.home].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
  writeFileSync(
    join(directory, 'restart-containerd'),
    `#!/bin/sh\nexec ${quoted.join(' ')} cluster restart-containerd\n`,
    {
      mode: 0o700,
    },
  );
  const values = {
    runtime: { nodeAgent: { containerd: containerdSettings(layout, state), hostProcess: 'containerd' } },
  };
  const file = join(directory, 'values.json');
  writeFileSync(file, `${JSON.stringify(values, undefined, 2)}\n`);
  return file;
}

/**
 * What a node agent of the cluster placed on this machine, or undefined where no agent did: then the cluster's containerd
 * has no fragment that names its programs.
 */
function placedInstallation(layout: Layout): NodeInstallation | undefined {
  const state = readClusterState(clusterDirectory(layout));
  if (state === undefined) return undefined;
  const containerd = containerdSettings(layout, state);
  const config = parseNodeAgentConfig(JSON.stringify({ hostRoot: '/', services: 'agent', containerd }), 'cluster');
  const fragment = join(dirname(state.containerdConfiguration), 'conf.d', 'sealpod.toml');
  if (!existsSync(fragment) || !readFileSync(fragment, 'utf8').includes(`${config.prefix}/current/`)) return undefined;
  return new NodeInstallation(config);
}

/**
 * Ends the cluster with `stop`, and then takes off this machine what its node agent placed there. In this order: the agent
 * would place it again.
 */
export async function stopWithInstallation(layout: Layout, stop: () => Promise<void>): Promise<void> {
  const installation = placedInstallation(layout);
  await stop();
  if (installation !== undefined) await removeFromHost(installation);
}
