import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { removeEmptyDirectories } from '../installer/record.ts';
import type { NodeAgentConfig } from './config.ts';
import { NodeContainerd } from './containerd.ts';
import { Host } from './host.ts';
import { adaptorConfiguration, type HostLayout, hostLayout } from './layout.ts';
import type { PayloadRecord } from './payload.ts';
import { AgentServices, digestOf, type Service, type ServiceManager, serves } from './services.ts';
import { SystemdServices } from './systemd.ts';

/** Where the release's firmware is below its programs of the host. */
const firmware = 'usr/share/ovmf/OVMF.fd';

/** What a host needs of its own, for pod VMs and for the agent. */
const hostPrograms = [
  ...['sh', 'env', 'setsid', 'sha256sum', 'sed', 'date', 'mkdir', 'cat', 'chown', 'mknod', 'mount'],
  ...['nsenter', 'unshare', 'prlimit', 'setpriv', 'ip', 'tc', 'iptables', 'sysctl'],
];

/** The parts of the runtime on one host, as the configuration wants them. */
export class NodeInstallation {
  readonly config: NodeAgentConfig;
  readonly host: Host;
  readonly layout: HostLayout;
  readonly containerd: NodeContainerd;
  readonly services: ServiceManager;

  constructor(config: NodeAgentConfig) {
    this.config = config;
    this.host = new Host(config);
    this.layout = hostLayout(config);
    this.containerd = new NodeContainerd(this.host, config.containerd, {
      at: this.layout.runtime,
      shimPath: this.layout.shimPath,
      shim: config.shim,
    });
    const systemd = config.services === 'systemd' || (config.services === 'auto' && this.host.hasSystemd);
    this.services = systemd ? new SystemdServices(this.host) : new AgentServices(this.host, this.layout.servicesFile);
  }

  /** @throws SealpodError PREREQUISITE naming the programs that the host lacks */
  async requirePrograms(): Promise<void> {
    const script = 'for name in "$@"; do command -v "$name" >/dev/null || echo "$name"; done';
    const absent = (await this.host.run(['sh', '-c', script, 'sh', ...hostPrograms]))
      .trim()
      .split('\n')
      .filter(Boolean);
    if (absent.length === 0) return;
    throw new SealpodError('PREREQUISITE', 'programs are missing on the node', {
      expected: hostPrograms.join(', '),
      actual: `missing: ${absent.join(', ')}`,
      fix: 'install coreutils, util-linux, iproute2, iptables and procps on the node',
    });
  }

  /** The adaptor's configuration, as its file holds it. */
  get adaptorSettings(): string {
    return `${JSON.stringify(adaptorConfiguration(this.config, this.layout, firmware), undefined, 2)}\n`;
  }

  /** Snapshotter and adaptor of a release. The configuration file comes last: it tells one installation from another. */
  servicesOf(release: PayloadRecord | undefined): { readonly snapshotter: Service; readonly adaptor: Service } {
    const { layout, config } = this;
    const program = (name: string, configuration: string): string[] => [
      ...[join(layout.library, 'node'), '--no-warnings', join(layout.library, `${name}.mjs`)],
      ...['--config', configuration],
    ];
    const digest = (settings: string): string => digestOf(release?.digest ?? '', config.prefix, settings);
    return {
      snapshotter: {
        name: 'snapshotter',
        description: 'Snapshotter for images that only the guest pulls',
        command: program('snapshotter', layout.snapshotterConfig),
        socket: layout.runtime.snapshotterSocket,
        digest: digest(JSON.stringify(layout.runtime)),
        logFile: layout.snapshotterLog,
      },
      adaptor: {
        name: 'adaptor',
        description: 'Adaptor that runs pods in virtual machines of their own',
        command: program('adaptor', layout.adaptorConfig),
        socket: layout.adaptorSocket,
        digest: digest(this.adaptorSettings),
        logFile: layout.adaptorLog,
      },
    };
  }

  /** Makes the folders that are ours, below those that may be others'. */
  makeDirectories(): void {
    const { host, config } = this;
    for (const path of [config.runDirectory, config.stateDirectory, config.configDirectory]) {
      mkdirSync(host.path(path), { recursive: true, mode: 0o755 });
    }
  }

  /** Whether snapshotter and adaptor accept connections. */
  async serving(): Promise<boolean> {
    const { snapshotter, adaptor } = this.servicesOf(undefined);
    return (await serves(this.host, snapshotter)) && (await serves(this.host, adaptor));
  }

  /** Removes our files of state, run and configuration directory. What others put there stays. */
  removeState(): void {
    const { host, config, layout } = this;
    for (const path of [...layout.state, ...layout.run, layout.adaptorConfig, layout.snapshotterConfig]) {
      rmSync(host.path(path), { recursive: true, force: true });
      rmSync(host.path(`${path}.new`), { force: true });
    }
    removeEmptyDirectories(host.root, [config.stateDirectory, config.runDirectory, config.configDirectory]);
  }

  /** Folders of pods that still exist on the host. */
  podFolders(): string[] {
    const pods = this.host.path(this.config.runDirectory, 'pods');
    return existsSync(pods) ? readdirSync(pods) : [];
  }
}
