import { isRunning } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { type CriClient, connectCri } from '@sealpod/runtimeclass/cri';
import type { EnvironmentState } from '../development/state.ts';

/** The container runtime of a running environment. Close it after use. @throws SealpodError NOT_FOUND where it does not run */
export function connectEnvironment(state: EnvironmentState): CriClient {
  if (state.containerdSocket === undefined)
    throw new SealpodError('NOT_FOUND', 'the environment has no container runtime yet');
  if (!runs(state, 'containerd')) {
    throw new SealpodError('NOT_FOUND', 'the container runtime of the environment has ended', {
      expected: 'a running containerd',
      actual: 'see `sealpod status`',
      fix: 'start everything again with `sealpod up`',
    });
  }
  return connectCri(state.containerdSocket);
}

/** Whether a part of the environment (`containerd`, `adaptor`, `kbs`, …) runs. */
export function runs(state: EnvironmentState, name: string): boolean {
  return state.daemons.some((daemon) => daemon.name === name && isRunning(daemon));
}
