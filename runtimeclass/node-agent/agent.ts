import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { asSealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { Writer } from '../installer/record.ts';
import { startupSnapshotName, writeStartupSnapshot } from '../installer/startup-snapshot.ts';
import type { NodeInstallation } from './installation.ts';
import type { Log } from './log.ts';
import type { NodeAgentMetrics } from './metrics.ts';
import type { KubernetesNode } from './node.ts';
import type { PayloadRecord } from './payload.ts';
import { Placement } from './placement.ts';
import type { AgentStatus, Stage } from './status.ts';

export interface AgentParts {
  readonly installation: NodeInstallation;
  readonly release: PayloadRecord;
  /** The API server's view of the node. */
  readonly node: Pick<KubernetesNode, 'publish'>;
  readonly metrics: NodeAgentMetrics;
  readonly log: Log;
}

/** Keeps one node able to run pods in virtual machines: looks again and again, and does what is not done. */
export class NodeAgent {
  readonly #parts: AgentParts;
  readonly #placement: Placement;
  #snapshotTried = false;
  #status: AgentStatus;

  constructor(parts: AgentParts) {
    const { installation, release } = parts;
    const { payload, prefix } = installation.config;
    this.#parts = parts;
    this.#placement = new Placement(payload, release, { root: installation.host.root, prefix });
    this.#status = { ready: false, release: release.version };
  }

  get status(): AgentStatus {
    return this.#status;
  }

  /** Looks until the signal comes. What runs on the host goes on. */
  async run(signal: AbortSignal): Promise<void> {
    const intervalMs = this.#parts.installation.config.intervalSeconds * 1000;
    while (!signal.aborted) {
      await this.look();
      await delay(intervalMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Looks once. Never throws: what went wrong is in the status. */
  async look(): Promise<AgentStatus> {
    const { node, log, metrics, release } = this.#parts;
    const before = this.#status.failure?.error.message;
    let failure = await this.#failureOf(['host', 'programs', 'services', 'containerd']);
    try {
      await node.publish(failure === undefined);
    } catch (thrown) {
      failure ??= { stage: 'node', error: asSealpodError(thrown) };
    }
    this.#status = {
      ready: failure === undefined,
      release: release.version,
      ...(failure === undefined ? {} : { failure }),
      lookedAt: Date.now(),
    };
    metrics.looked(this.#status);
    if (failure !== undefined && failure.error.message !== before) {
      const { code, message, detail } = failure.error;
      log.error({ stage: failure.stage, code, ...detail, fix: fixOf(failure.error) }, message);
    }
    if (failure === undefined && before !== undefined) log.info({}, 'everything serves again');
    return this.#status;
  }

  async #failureOf(wanted: readonly Exclude<Stage, 'node'>[]): Promise<AgentStatus['failure']> {
    for (const stage of wanted) {
      try {
        await this.#steps[stage]();
      } catch (thrown) {
        return { stage, error: asSealpodError(thrown) };
      }
    }
    return undefined;
  }

  readonly #steps: Readonly<Record<Exclude<Stage, 'node'>, () => Promise<void>>> = {
    host: async () => {
      await this.#parts.installation.requirePrograms();
      this.#parts.installation.makeDirectories();
    },
    programs: async () => {
      const { installation, log, metrics, release } = this.#parts;
      const { repaired, switched } = this.#placement.ensure();
      if (switched) log.info({ release: release.version, digest: release.digest }, 'release placed');
      if (repaired.length > 0)
        log.warn({ files: repaired.slice(0, 20) }, 'files were missing or changed: placed again');
      metrics.repaired('file', repaired.length);
      if (switched || repaired.length > 0 || !this.#snapshotTried) this.#ensureStartupSnapshot(repaired.length > 0);
      const unused = this.#placement.removeUnused(installation.host.executables());
      if (unused.length > 0) log.info({ releases: unused }, 'releases without a process removed');
    },
    services: async () => {
      const { installation, release, log, metrics } = this.#parts;
      const { snapshotter, adaptor } = installation.servicesOf(release);
      this.#writeConfigurations();
      for (const service of [snapshotter, adaptor]) {
        if (!(await installation.services.ensure(service))) continue;
        log.info({ service: service.name }, 'service started');
        metrics.repaired(service.name, 1);
      }
    },
    containerd: async () => {
      const { installation, log, metrics } = this.#parts;
      if (!(await installation.containerd.ensure())) return;
      log.info({}, 'containerd restarted with the runtime');
      metrics.containerdRestarted();
    },
  };

  /** Pods start without one, too, only slower: a failure is told and no more. */
  #ensureStartupSnapshot(outdated: boolean): void {
    this.#snapshotTried = true;
    const { installation, log } = this.#parts;
    const path = join(installation.host.root, installation.layout.library, startupSnapshotName);
    // A release's folder keeps the one that an earlier agent made.
    if (existsSync(path) && !outdated) return;
    try {
      writeStartupSnapshot(path);
    } catch (thrown) {
      const { message, detail } = asSealpodError(thrown);
      log.warn({ ...detail }, message);
    }
  }

  /** Both services read a file at their start; containerd's own part comes after they serve. */
  #writeConfigurations(): void {
    const { installation } = this.#parts;
    const { layout, host } = installation;
    // Uninstalling knows these files by name; the record is for what containerd's configuration brings.
    const writer = new Writer(host.root, { files: [], directories: [], createdConfiguration: false });
    const { snapshotterSocket: socket, snapshotterRoot: root } = layout.runtime;
    writer.file(layout.snapshotterConfig, `${JSON.stringify({ socket, root }, undefined, 2)}\n`);
    writer.file(layout.adaptorConfig, installation.adaptorSettings, 0o600);
  }
}
