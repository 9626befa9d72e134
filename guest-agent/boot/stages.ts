import { performance } from 'node:perf_hooks';
import { guestMessages, type StartStage } from '@sealpod/protocol/status';
import { failureFields, type Log } from './console-log.ts';

/** What a stage is about; the host knows all of it. */
export interface StageSubject {
  /** Name of the container in the pod. */
  readonly container?: string;
  readonly image?: string;
}

/**
 * Runs one stage of the pod's start. `tell` adds the correlation id of a stage that ended well; a failure brings its own.
 */
export type DuringStage = <Result>(
  stage: StartStage,
  subject: StageSubject,
  work: () => Promise<Result>,
  tell?: (result: Result) => string | undefined,
) => Promise<Result>;

/** Tells each stage on the console when it begins and when it ends: its duration, its code, its correlation id. */
export function tellStages(log: Log): DuringStage {
  return async (stage, subject, work, tell) => {
    const began = performance.now();
    const elapsed = (): number => Math.round(performance.now() - began);
    log('info', guestMessages.stage, { stage, ...subject });
    try {
      const result = await work();
      log('info', guestMessages.stage, { stage, ...subject, ms: elapsed(), code: 'OK', correlation: tell?.(result) });
      return result;
    } catch (error) {
      log('error', guestMessages.stage, { stage, ...subject, ms: elapsed(), ...failureFields(error) });
      throw error;
    }
  };
}
