import { PodMachine } from '../guest/hypervisor.ts';
import type { Logger } from '../log.ts';
import { writeState } from '../state-file.ts';

const stopMs = 60_000;
/** How long an adaptor that is away is waited for to stop the machine. */
const adaptorAwayMs = 15_000;
const betweenAttemptsMs = 500;

export interface RecordedMachineOptions {
  /** Of the sandbox. */
  readonly id: string;
  readonly bundle: string;
  /** Where the shim listens; the state file stands beside it. */
  readonly socketPath: string;
  /** The adaptor that has the machine. */
  readonly hypervisorSocket: string;
  readonly log: Logger;
}

/** The machine of a pod, written down before it is started, so that one whose shim dies is found and stopped. */
export class RecordedMachine {
  readonly machine: PodMachine;
  readonly #options: RecordedMachineOptions;
  #left = false;

  constructor(options: RecordedMachineOptions) {
    this.machine = new PodMachine(options.id, options.hypervisorSocket);
    this.#options = options;
    this.#note(options.hypervisorSocket);
  }

  /** Whether there is, or may be, a machine that was not stopped. */
  get left(): boolean {
    return this.#left;
  }

  /** Tries for as long as an adaptor may be away. Failures are logged. */
  async stop(): Promise<void> {
    const { log } = this.#options;
    const deadline = Date.now() + adaptorAwayMs;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.machine.stop(stopMs);
        this.#note('');
        return;
      } catch (error) {
        log.info('cannot stop the machine', { attempt, error });
        // The state stays: the next shim on this node stops the machine when the adaptor is back.
        if (Date.now() > deadline) return;
        await new Promise((resolve) => setTimeout(resolve, betweenAttemptsMs));
      }
    }
  }

  /** Writes down, before the effect, which adaptor has a machine of this pod; none after it is stopped. */
  #note(hypervisorSocket: string): void {
    const { id, bundle, socketPath } = this.#options;
    writeState(socketPath, { version: 1, id, pid: process.pid, bundle, hypervisorSocket });
    this.#left = hypervisorSocket !== '';
  }
}
