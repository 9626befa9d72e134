import type { SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';

/** The steps of one look at the node, in their order: each needs what comes before it. */
export const stages = ['host', 'programs', 'services', 'containerd', 'node'] as const;
export type Stage = (typeof stages)[number];

/** What the last look found. */
export interface AgentStatus {
  readonly ready: boolean;
  /** Release that is placed, or is to be. */
  readonly release: string;
  /** The stage that failed, and why. */
  readonly failure?: { readonly stage: Stage; readonly error: SealpodError };
  /** Milliseconds since 1970 at which the last look ended; undefined before the first. */
  readonly lookedAt?: number;
}

/** What /readyz says of a status: one line, and what to do. */
export function describeStatus(status: AgentStatus): string {
  if (status.lookedAt === undefined) return 'starting: the node is looked at for the first time\n';
  if (status.failure === undefined) return `ready: release ${status.release}\n`;
  const { stage, error } = status.failure;
  const { expected, actual } = error.detail;
  const lines = [
    `${stage}: ${error.code}: ${error.message}`,
    ...(expected === undefined ? [] : [`expected: ${expected}`]),
    ...(actual === undefined ? [] : [`actual: ${actual}`]),
    `to do: ${fixOf(error)}`,
  ];
  return `${lines.join('\n')}\n`;
}
