import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PodMachine } from './guest/hypervisor.ts';
import type { Logger } from './log.ts';
import { type PodState, readState, removeTraces, statePath } from './state-file.ts';

/** containerd gives the delete verb 5 s. */
const stopMs = 4000;
const betweenAttemptsMs = 200;

/** Whether `pid` is still a shim that serves `socketPath`: a number alone may have been given to another process. */
function isShim(pid: number, socketPath: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(socketPath);
  } catch {
    return false;
  }
}

/** Stops the machine, where one was asked for, and removes what is left of the shim. An adaptor that restarts is waited for. */
async function stopMachine(socketPath: string, state: PodState): Promise<void> {
  const deadline = Date.now() + stopMs;
  const machine = new PodMachine(state.id, state.hypervisorSocket, state.hypervisorSocket !== '');
  for (;;) {
    try {
      await machine.stop(Math.max(1, deadline - Date.now()));
      break;
    } catch (error) {
      if (Date.now() + betweenAttemptsMs > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, betweenAttemptsMs));
    }
  }
  removeTraces(socketPath);
}

/**
 * The delete verb for a pod whose shim died: ends a shim that hangs, stops the machine through the adaptor, and removes
 * socket and state. Where the adaptor cannot be reached the state stays, and the next shim of this node tries again.
 *
 * @throws SealpodError HYPERVISOR when the adaptor cannot be reached; TtrpcError when it refuses.
 */
export async function cleanUpDeadShim(socketPath: string): Promise<void> {
  const state = readState(statePath(socketPath));
  if (state === undefined) return;
  if (isShim(state.pid, socketPath)) process.kill(state.pid, 'SIGKILL');
  rmSync(socketPath, { force: true });
  await stopMachine(socketPath, state);
}

/** Stops machines that a delete verb could not: their shim is dead and containerd has forgotten the pod. */
export async function sweepForgottenPods(ownSocketPath: string, log: Logger): Promise<void> {
  const directory = dirname(ownSocketPath);
  for (const name of readdirSync(directory)) {
    const socketPath = join(directory, name.replace(/\.json$/, ''));
    if (!/^[0-9a-f]{64}\.json$/.test(name) || socketPath === ownSocketPath) continue;
    try {
      const state = readState(join(directory, name));
      if (state === undefined || isShim(state.pid, socketPath) || existsSync(state.bundle)) continue;
      await stopMachine(socketPath, state);
      log.info('stopped the machine of a forgotten pod', { pod: state.id });
    } catch (error) {
      log.info('cannot clean up after a forgotten pod', { state: name, error });
    }
  }
}
