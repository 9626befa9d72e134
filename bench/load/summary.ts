/** What one run of a load generator found, as its line of output. */
export interface LoadSummary {
  readonly ok: number;
  readonly perSec: number;
  readonly p50ms: number | undefined;
  readonly p99ms: number | undefined;
  /** Null where the server's processes are not known. */
  readonly serverMsPerOp: number | null;
}

/**
 * @param latencies milliseconds of each operation
 * @param spent processor time of the server in seconds; not a number where it is not known
 */
export function summarize(latencies: readonly number[], seconds: number, spent: number): LoadSummary {
  const sorted = latencies.toSorted((left, right) => left - right);
  const at = (share: number): number | undefined => sorted[Math.floor(sorted.length * share)];
  return {
    ok: latencies.length,
    perSec: latencies.length / seconds,
    p50ms: at(0.5),
    p99ms: at(0.99),
    serverMsPerOp: Number.isNaN(spent) ? null : (spent * 1000) / latencies.length,
  };
}
