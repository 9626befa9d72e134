import { SealpodError } from '@sealpod/protocol/errors';
import type { Operations, Storage } from '@sealpod/storage';
import type { Decision } from './record.ts';

const stream = 'kbs/decisions';

/**
 * Appends a decision. Called inside the transaction that the decision permits, so that both are on disk or neither.
 * Throws `AUDIT_APPEND_FAILED`: then nothing may be released.
 */
export async function appendDecision(transaction: Operations, decision: Decision): Promise<void> {
  try {
    await transaction.append(stream, JSON.stringify(decision), { key: decision.correlationId });
  } catch (cause) {
    throw new SealpodError('AUDIT_APPEND_FAILED', 'the decision could not be recorded', { cause });
  }
}

/**
 * Runs `work` in one transaction and appends the decision it returns. `STORAGE` failures of the transaction as a whole
 * (disk full, read-only, locked) become `AUDIT_APPEND_FAILED`: what was decided is not on record.
 */
export async function decide<Result>(
  storage: Storage,
  work: (transaction: Operations) => Promise<{ readonly decision: Decision; readonly result: Result }>,
): Promise<Result> {
  try {
    return await storage.transaction(async (transaction) => {
      const { decision, result } = await work(transaction);
      await appendDecision(transaction, decision);
      return result;
    });
  } catch (thrown) {
    if (thrown instanceof SealpodError && thrown.code === 'STORAGE') {
      throw new SealpodError('AUDIT_APPEND_FAILED', 'the decision could not be recorded', { cause: thrown });
    }
    throw thrown;
  }
}

/** All records of one correlation id, oldest first, as stored JSON text. */
export async function readDecisions(storage: Storage, correlationId: string): Promise<string[]> {
  return (await storage.read(stream, { key: correlationId })).map((entry) => entry.value);
}

/** The newest records first, as stored JSON text. */
export async function readLatestDecisions(storage: Storage, limit: number): Promise<string[]> {
  return (await storage.read(stream, { newestFirst: true, limit })).map((entry) => entry.value);
}
