import { join } from 'node:path';
import type { RuntimeLocation } from '../installer/configure.ts';
import type { NodeAgentConfig } from './config.ts';

/** Where everything is on the host; paths without its root. */
export interface HostLayout {
  readonly library: string;
  readonly tools: string;
  readonly podVmImages: string;
  readonly shimPath: string;
  readonly adaptorConfig: string;
  readonly adaptorSocket: string;
  /** Where the adaptor says what its sandboxes do, and its metrics. */
  readonly adaptorStatusSocket: string;
  readonly adaptorLog: string;
  readonly snapshotterConfig: string;
  readonly snapshotterLog: string;
  readonly servicesFile: string;
  readonly lockFile: string;
  readonly runtime: RuntimeLocation;
  /** Everything below the state and the run directory that is ours. */
  readonly state: readonly string[];
  readonly run: readonly string[];
}

/** The layout of a configuration. Programs are named by the link that an upgrade switches. */
export function hostLayout(config: NodeAgentConfig): HostLayout {
  const { prefix, configDirectory, stateDirectory, runDirectory, hostRoot } = config;
  const current = join(prefix, 'current');
  const library = join(current, 'lib');
  const adaptorSocket = join(runDirectory, 'adaptor.sock');
  const adaptorStatusSocket = join(runDirectory, 'adaptor-status.sock');
  const snapshotterSocket = join(runDirectory, 'snapshotter.sock');
  const servicesFile = join(runDirectory, 'services.json');
  const lockFile = join(runDirectory, 'node-agent.lock');
  const logs = join(stateDirectory, 'log');
  return {
    library,
    tools: join(current, 'tools'),
    podVmImages: join(current, 'pod-vm'),
    shimPath: join(library, 'containerd-shim-sealpod-v2'),
    adaptorConfig: join(configDirectory, 'adaptor.json'),
    adaptorSocket,
    adaptorStatusSocket,
    adaptorLog: join(logs, 'adaptor.log'),
    snapshotterConfig: join(configDirectory, 'snapshotter.json'),
    snapshotterLog: join(logs, 'snapshotter.log'),
    servicesFile,
    lockFile,
    runtime: {
      hostRoot,
      containerdConfigPath: config.containerd.configuration,
      configDirectory,
      snapshotterSocket,
      snapshotterRoot: join(stateDirectory, 'snapshotter'),
      hypervisorSocket: adaptorSocket,
    },
    state: ['snapshotter', 'tpm-authority', 'pod-vm-images', 'log'].map((name) => join(stateDirectory, name)),
    run: [
      adaptorSocket,
      adaptorStatusSocket,
      snapshotterSocket,
      servicesFile,
      lockFile,
      join(runDirectory, 'pods'),
      join(runDirectory, 'adaptor'),
    ],
  };
}

/** The adaptor's configuration file. What the node agent places is taken where the provider's options say nothing. */
export function adaptorConfiguration(config: NodeAgentConfig, layout: HostLayout, firmware: string): object {
  const { provider, ...settings } = config.adaptor;
  const placed = {
    imagesDirectory: layout.podVmImages,
    tpmAuthorityDirectory: join(config.stateDirectory, 'tpm-authority'),
    firmware: join(layout.tools, firmware),
    programsDirectory: join(layout.tools, 'bin'),
  };
  return {
    ...settings,
    socket: layout.adaptorSocket,
    statusSocket: layout.adaptorStatusSocket,
    podsDirectory: join(config.runDirectory, 'pods'),
    stateDirectory: join(config.runDirectory, 'adaptor'),
    provider: provider.name === 'qemu' ? { ...placed, ...provider } : provider,
  };
}
