import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { Host } from './host.ts';
import { type Service, type ServiceManager, untilServing } from './services.ts';

/** What is asked of a host. */
type ServiceHost = Pick<Host, 'path' | 'run'>;

const unitName = ({ name }: Service): string => `sealpod-${name}.service`;
const unitPath = (service: Service): string => `/etc/systemd/system/${unitName(service)}`;

/**
 * The unit of a service. `KillMode=process`: what the adaptor started, the pod VMs, goes on when it is stopped or
 * replaced. The comment makes a unit of another release or configuration another file.
 */
export function serviceUnit(service: Service): string {
  const words = service.command.map(
    (word) => `"${word.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('%', '%%')}"`,
  );
  return `# Written by sealpod's node agent, which also removes it. ${service.digest}
[Unit]
Description=${service.description}
Before=containerd.service

[Service]
ExecStart=${words.join(' ')}
Restart=always
RestartSec=1
KillMode=process
UMask=0077
StandardOutput=append:${service.logFile}
StandardError=append:${service.logFile}

[Install]
WantedBy=multi-user.target
`;
}

/** Services as units of the host's systemd, which starts them at boot, before containerd, and again when they die. */
export class SystemdServices implements ServiceManager {
  readonly #host: ServiceHost;

  constructor(host: ServiceHost) {
    this.#host = host;
  }

  async ensure(service: Service): Promise<boolean> {
    const file = this.#host.path(unitPath(service));
    const unit = serviceUnit(service);
    const written = existsSync(file) ? readFileSync(file, 'utf8') : undefined;
    const runs = (): Promise<boolean> => this.#isActive(service);
    if (written === unit && (await runs())) {
      await untilServing(this.#host, service, runs);
      return false;
    }
    // systemd opens the log before the program runs, and makes no folders.
    await this.#host.run(['mkdir', '-p', '-m', '700', service.logFile.replace(`/${basename(service.logFile)}`, '')]);
    writeFileSync(file, unit, { mode: 0o644 });
    await this.#systemctl('daemon-reload');
    await this.#systemctl('enable', unitName(service));
    await this.#systemctl('restart', unitName(service));
    await untilServing(this.#host, service, runs);
    return true;
  }

  async remove(service: Service): Promise<void> {
    const file = this.#host.path(unitPath(service));
    if (!existsSync(file)) return;
    await this.#systemctl('disable', '--now', unitName(service));
    rmSync(file);
    await this.#systemctl('daemon-reload');
  }

  #isActive(service: Service): Promise<boolean> {
    return this.#systemctl('is-active', '--quiet', unitName(service)).then(
      () => true,
      () => false,
    );
  }

  #systemctl(...args: readonly string[]): Promise<string> {
    return this.#host.run(['systemctl', ...args], 120_000);
  }
}
