import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import type { EngineLimits } from './instance.ts';

/** What a worker is started with. */
export interface WorkerSettings {
  readonly module: WebAssembly.Module;
  readonly memoryPages: number;
  readonly limits: EngineLimits;
}

/** One piece of work. The policy text travels once for each worker; later only its number does. */
export interface WorkRequest {
  readonly policyId: number;
  readonly policy?: string;
  /** A policy number that the sender will not use again without its text. */
  readonly forget?: number;
  readonly strictBuiltinErrors: boolean;
  readonly gatherPrints: boolean;
  /** Rule paths to evaluate; none: compile only. */
  readonly rules: readonly string[];
  readonly input?: string;
  readonly data?: string;
  /** Reference values by id; where absent, the function does not exist. */
  readonly referenceValues?: Readonly<Record<string, unknown>>;
}

export type WorkReply =
  | {
      readonly ok: true;
      /** JSON text of each rule's value, in the order asked for; undefined where the rule is. */
      readonly values: readonly (string | undefined)[];
      readonly prints: readonly string[];
      readonly referenceValueIds: readonly string[];
    }
  | { readonly ok: false; readonly code: ReasonCode; readonly message: string; readonly prints: readonly string[] };
