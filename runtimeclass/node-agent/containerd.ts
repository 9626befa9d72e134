import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { PodSandboxState } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import { type CriClient, connectCri } from '../cri/client.ts';
import {
  configureRuntime,
  containerdFiles,
  type RuntimeLocation,
  removeConfiguration,
} from '../installer/configure.ts';
import { runtimeName } from '../installer/containerd-config.ts';
import { containerdRelease } from '../installer/containerd-version.ts';
import type { NodeAgentConfig } from './config.ts';
import type { Host } from './host.ts';

const callTimeoutMs = 5000;
const restartTimeoutMs = 120_000;

/** A pod of the runtime on this node. */
export interface SealedPod {
  readonly id: string;
  readonly name: string;
  readonly namespace: string;
  readonly running: boolean;
}

/** What containerd is given of the runtime: the release's programs, by the link that an upgrade switches. */
export interface RuntimeSettings {
  readonly at: RuntimeLocation;
  readonly shimPath: string;
  readonly shim: Readonly<Record<string, unknown>>;
}

/** containerd of the node: its configuration, its restart, its pods. */
export class NodeContainerd {
  readonly #host: Host;
  readonly #config: NodeAgentConfig['containerd'];
  readonly #settings: RuntimeSettings;
  /** What containerd did not start with: it is not tried again until something is different. */
  #refused: { readonly content: string; readonly error: SealpodError } | undefined;
  #version: string | undefined;
  restarts = 0;

  constructor(host: Host, config: NodeAgentConfig['containerd'], settings: RuntimeSettings) {
    this.#host = host;
    this.#config = config;
    this.#settings = settings;
  }

  get #pendingFile(): string {
    return this.#host.path(this.#settings.at.configDirectory, 'containerd-restart-pending');
  }

  /**
   * Makes containerd know the runtime. It is restarted only where its configuration changed, and never with one that it
   * does not accept: then, and where it does not come back, the files are put back as they were.
   *
   * @returns whether it was restarted
   * @throws SealpodError UNSUPPORTED, PREREQUISITE, REQUEST_FORMAT
   */
  async ensure(): Promise<boolean> {
    const { at, shimPath, shim } = this.#settings;
    this.#version ??= (await this.#host.run([this.#config.program, '--version'])).trim().split(/\s+/)[2] ?? '';
    const release = containerdRelease(this.#version);
    const before = this.#files();
    if (this.#refused?.content === JSON.stringify([...before])) throw this.#refused.error;
    const interrupted = existsSync(this.#pendingFile);
    const { containerdChanged } = configureRuntime(at, { release, shimPath, shim });
    if (!containerdChanged && !interrupted) {
      await this.#requireRuntime();
      return false;
    }
    writeFileSync(this.#pendingFile, '', { mode: 0o600 });
    const restartsBefore = this.restarts;
    try {
      await this.#host.run([this.#config.program, '--config', at.containerdConfigPath, 'config', 'dump']);
      await this.restart();
      await this.#requireRuntime();
    } catch (cause) {
      await this.#putBack(before, this.restarts > restartsBefore, asSealpodError(cause, 'PREREQUISITE'));
    }
    rmSync(this.#pendingFile, { force: true });
    return true;
  }

  /** Removes the runtime from containerd's configuration. @returns whether there was anything to remove */
  async remove(): Promise<boolean> {
    rmSync(this.#pendingFile, { force: true });
    if (!removeConfiguration(this.#settings.at)) return false;
    await this.restart();
    return true;
  }

  /** Restarts containerd and waits until its CRI serves. Pods go on: their shims outlive it. */
  async restart(): Promise<void> {
    const { restart, readyTimeoutSeconds, socket } = this.#config;
    this.restarts += 1;
    const command = 'systemd' in restart ? ['systemctl', 'restart', restart.systemd] : restart.command;
    await this.#host.run(command, restartTimeoutMs);
    const deadline = Date.now() + readyTimeoutSeconds * 1000;
    let last = 'no answer';
    while (Date.now() < deadline) {
      const problem = await this.#notReady();
      if (problem === undefined) return;
      last = problem;
      await delay(200);
    }
    throw new SealpodError('PREREQUISITE', 'containerd does not serve after its restart', {
      expected: `the CRI on ${socket} within ${readyTimeoutSeconds} s`,
      actual: last,
      fix: 'see the log of containerd on the node',
    });
  }

  /** The pods of the runtime that containerd knows. */
  async pods(): Promise<SealedPod[]> {
    const { items } = await this.#cri((cri) => cri.runtime.listPodSandbox({}, { timeoutMs: callTimeoutMs }));
    return items
      .filter(({ runtimeHandler }) => runtimeHandler === runtimeName)
      .map(({ id, metadata, state }) => ({
        id,
        name: metadata?.name ?? '',
        namespace: metadata?.namespace ?? '',
        running: state === PodSandboxState.SANDBOX_READY,
      }));
  }

  /** Ends a pod and removes it from containerd. */
  async removePod(id: string): Promise<void> {
    await this.#cri(async ({ runtime }) => {
      await runtime.stopPodSandbox({ podSandboxId: id }, { timeoutMs: 60_000 });
      await runtime.removePodSandbox({ podSandboxId: id }, { timeoutMs: 60_000 });
    });
  }

  async #putBack(
    before: ReadonlyMap<string, Buffer | undefined>,
    restarted: boolean,
    cause: SealpodError,
  ): Promise<never> {
    for (const [path, content] of before) {
      if (content === undefined) rmSync(this.#host.path(path), { force: true });
      else writeFileSync(this.#host.path(path), content);
    }
    let outcome = restarted ? 'it was put back, and containerd serves again' : 'it was put back before a restart';
    try {
      if (restarted) await this.restart();
    } catch (error) {
      outcome = `it was put back, and containerd still does not serve: ${asSealpodError(error).message}`;
    }
    rmSync(this.#pendingFile, { force: true });
    const error = new SealpodError('PREREQUISITE', `containerd did not take the runtime's configuration; ${outcome}`, {
      cause,
      expected: 'a configuration that containerd starts with',
      actual: [cause.message, cause.detail.actual].filter(Boolean).join(': '),
      fix: `compare with \`${this.#config.program} config dump\` on the node; changing ${this.#config.configuration} makes the agent try again`,
    });
    this.#refused = { content: JSON.stringify([...this.#files()]), error };
    throw error;
  }

  #files(): Map<string, Buffer | undefined> {
    return new Map(
      containerdFiles(this.#settings.at).map((path) => {
        const file = this.#host.path(path);
        return [path, existsSync(file) ? readFileSync(file) : undefined];
      }),
    );
  }

  /** What is not ready, or undefined. A network that is not ready is the CNI plugin's affair. */
  async #notReady(): Promise<string | undefined> {
    try {
      const { status } = await this.#cri((cri) => cri.runtime.status({}, { timeoutMs: callTimeoutMs }));
      const runtime = status?.conditions.find(({ type }) => type === 'RuntimeReady');
      return runtime?.status === true ? undefined : `RuntimeReady is not met: ${runtime?.message ?? 'not reported'}`;
    } catch (error) {
      return asSealpodError(error).message;
    }
  }

  /** @throws SealpodError PREREQUISITE where containerd serves without the runtime */
  async #requireRuntime(): Promise<void> {
    let names: readonly string[];
    try {
      const { runtimeHandlers, info } = await this.#cri((cri) =>
        cri.runtime.status({ verbose: true }, { timeoutMs: callTimeoutMs }),
      );
      // Before 2.0 the handlers are told in the plugin's configuration alone.
      names = runtimeHandlers.length > 0 ? runtimeHandlers.map(({ name }) => name) : handlersIn(info['config'] ?? '{}');
    } catch (cause) {
      throw new SealpodError('PREREQUISITE', 'containerd does not answer', {
        cause,
        expected: `the CRI on ${this.#config.socket}`,
        actual: asSealpodError(cause).message,
        fix: 'see the log of containerd on the node',
      });
    }
    if (names.includes(runtimeName)) return;
    throw new SealpodError('PREREQUISITE', `containerd does not know the runtime ${runtimeName}`, {
      expected: `a handler ${runtimeName}`,
      actual: names.join(', ') || 'none',
      fix: `containerd has to read ${this.#config.configuration}; restart it`,
    });
  }

  async #cri<T>(call: (cri: CriClient) => Promise<T>): Promise<T> {
    const cri = connectCri(join(this.#host.root, this.#config.socket));
    try {
      return await call(cri);
    } finally {
      cri.close();
    }
  }
}

/** Names of the runtimes in the configuration that the CRI plugin of containerd 1 tells. */
function handlersIn(config: string): string[] {
  const parsed = JSON.parse(config) as { containerd?: { runtimes?: Record<string, unknown> } };
  return Object.keys(parsed.containerd?.runtimes ?? {});
}
