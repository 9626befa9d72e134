/** One measured quantity: the median of its runs and how far they spread. */
export interface Figure {
  readonly name: string;
  readonly unit: 'ms' | 's' | '1/s' | 'MiB' | 'MiB/s';
  readonly median: number;
  readonly smallest: number;
  readonly largest: number;
  readonly runs: number;
}

/** Two figures of one run, compared: `value` = ours divided by the peer's. */
export interface Ratio {
  readonly ours: Figure;
  readonly peer: Figure;
  readonly value: number;
}

/** What a case measured. */
export interface Measured {
  readonly figures: readonly Figure[];
  readonly ratios: readonly Ratio[];
  /** What one has to know to read the figures. */
  readonly notes: readonly string[];
}

/** What every case is told. */
export interface BenchContext {
  /** Measured runs of each side; a warm-up that is not counted comes before them. */
  readonly runs: number;
  /** How many pods are started at once, for cases on a cluster: one round each. */
  readonly pods: readonly number[];
  /** A folder of this run alone, removed afterwards. */
  readonly scratch: string;
  /** Tells what is being done. */
  readonly say: (text: string) => void;
  /** Base URL of an upstream key broker to measure beside ours, where there is one. */
  readonly peerKeyBroker?: string | undefined;
  /** Another load generator to run in the place of ours; see `load/rcar-load.ts` for its arguments. */
  readonly loadGenerator?: string | undefined;
}

/** One thing that can be measured. */
export interface BenchCase {
  readonly name: string;
  /** What is measured against what, in one sentence. */
  readonly definition: string;
  /** Only run where it is named: it takes far longer than the others. */
  readonly onRequest?: boolean;
  /** Why it cannot be measured on this machine; undefined where it can. */
  readonly obstacle: () => string | undefined;
  readonly run: (context: BenchContext) => Promise<Measured>;
}

/**
 * Median and range of samples.
 *
 * @throws RangeError where there is none, or one is not a finite number
 */
export function figure(name: string, unit: Figure['unit'], samples: readonly number[]): Figure {
  const sorted = samples.toSorted((left, right) => left - right);
  const [smallest, largest] = [sorted[0], sorted.at(-1)];
  const [lower, upper] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  if (smallest === undefined || largest === undefined || lower === undefined || upper === undefined) {
    throw new RangeError(`nothing was measured of: ${name}`);
  }
  if (!sorted.every(Number.isFinite)) throw new RangeError(`a sample is not a number: ${name}`);
  return { name, unit, median: (lower + upper) / 2, smallest, largest, runs: sorted.length };
}

/** Compares two figures of the same unit. @throws RangeError where the units differ */
export function ratio(ours: Figure, peer: Figure): Ratio {
  if (ours.unit !== peer.unit) throw new RangeError(`${ours.name} and ${peer.name} have different units`);
  return { ours, peer, value: ours.median / peer.median };
}

/** Runs both sides in turn, so that what else the machine does falls on both; the first round is not counted. */
export async function inTurn<const Sides extends Record<string, () => Promise<number>>>(
  runs: number,
  sides: Sides,
): Promise<{ readonly [Side in keyof Sides]: number[] }> {
  const samples = Object.fromEntries(Object.keys(sides).map((side): [string, number[]] => [side, []]));
  for (let round = 0; round <= runs; round++) {
    for (const [side, once] of Object.entries(sides)) {
      const sample = await once();
      if (round > 0) samples[side]?.push(sample);
    }
  }
  return samples as { readonly [Side in keyof Sides]: number[] };
}
