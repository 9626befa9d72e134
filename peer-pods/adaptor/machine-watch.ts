import { setTimeout as sleep } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { toTtrpcError } from '@sealpod/protocol/ttrpc';
import type { AgentProxy } from '../agent-proxy/agent-proxy.ts';
import type { InstanceReference } from '../providers/provider.ts';
import { endOf } from './guest.ts';
import type { SandboxDependencies } from './sandbox-dependencies.ts';

/** How long a machine whose agent channel was lost is watched for its end, and how often it is looked for. */
const lossWatchMs = 3000;
const lookMs = 100;
/** How much of the console the reason of an end quotes. */
const quotedCharacters = 400;

/** Notices that the machine of a running pod has ended, and tells whoever uses its agent. */
export class MachineWatch {
  readonly #reference: InstanceReference;
  readonly #dependencies: SandboxDependencies;
  #ended: SealpodError | undefined;

  constructor(reference: InstanceReference, dependencies: SandboxDependencies) {
    this.#reference = reference;
    this.#dependencies = dependencies;
  }

  /** Why the machine has ended; absent while it has not. */
  get ended(): string | undefined {
    return this.#ended?.message;
  }

  /** Looks once. The rest is left to the stop that follows. Throws what the provider throws. */
  async look(proxy: AgentProxy | undefined): Promise<void> {
    const { journal, provider, log } = this.#dependencies;
    const { sandboxId, name } = this.#reference;
    const running = (): boolean => journal.records.get(sandboxId)?.phase === 'running' && this.#ended === undefined;
    if (!running() || (await provider.findInstance(this.#reference)) !== undefined) return;
    const consoleLogPath = journal.records.get(sandboxId)?.instance?.consoleLogPath;
    const console = consoleLogPath === undefined ? '' : (await endOf(consoleLogPath)).slice(-quotedCharacters);
    if (!running()) return;
    this.#ended = new SealpodError(
      'VM_ENDED',
      `the pod VM ${name} has ended${console && `; its console ends with: ${console}`}`,
    );
    log.error({ sandbox: sandboxId, code: this.#ended.code }, this.#ended.message);
    proxy?.guest.end(toTtrpcError(this.#ended));
  }

  /** After the agent channel was lost: a machine that ends takes it along, a moment before it is gone. */
  async channelLost(proxy: AgentProxy): Promise<void> {
    const deadline = performance.now() + lossWatchMs;
    try {
      while (performance.now() < deadline && this.#ended === undefined) {
        await this.look(proxy);
        if (proxy.guest.connected) return;
        await sleep(lookMs);
      }
    } catch (error) {
      const { log } = this.#dependencies;
      log.warn({ sandbox: this.#reference.sandboxId, reason: String(error) }, 'cannot look for the machine');
    }
  }
}
