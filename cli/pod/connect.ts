import { SealpodError } from '@sealpod/protocol/errors';
import { type CriClient, connectCri } from '@sealpod/runtimeclass/cri';
import type { EnvironmentState } from '../development/state.ts';

/** The container runtime of a running environment. Close it after use. @throws SealpodError NOT_FOUND */
export function connectEnvironment(state: EnvironmentState): CriClient {
  if (state.containerdSocket === undefined)
    throw new SealpodError('NOT_FOUND', 'the environment has no container runtime yet');
  return connectCri(state.containerdSocket);
}
