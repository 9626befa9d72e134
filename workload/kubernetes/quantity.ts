import { SealpodError } from '@sealpod/protocol/errors';

const suffixes: Readonly<Record<string, readonly [numerator: bigint, denominator: bigint]>> = {
  n: [1n, 1_000_000_000n],
  u: [1n, 1_000_000n],
  m: [1n, 1000n],
  '': [1n, 1n],
  k: [1000n, 1n],
  M: [1000n ** 2n, 1n],
  G: [1000n ** 3n, 1n],
  T: [1000n ** 4n, 1n],
  P: [1000n ** 5n, 1n],
  E: [1000n ** 6n, 1n],
  Ki: [1n << 10n, 1n],
  Mi: [1n << 20n, 1n],
  Gi: [1n << 30n, 1n],
  Ti: [1n << 40n, 1n],
  Pi: [1n << 50n, 1n],
  Ei: [1n << 60n, 1n],
};
const pattern = /^\+?(\d{0,18})(?:\.(\d{0,18}))?(?:[eE]([+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)$/;

/**
 * A Kubernetes quantity in thousandths of its unit, rounded up as Kubernetes rounds (apimachinery's resource.Quantity).
 * Exact: binary and decimal suffixes, fractions and exponents are computed in integers.
 *
 * @throws SealpodError REQUEST_FORMAT for what is no quantity, or a negative one.
 */
export function quantityInThousandths(text: string | number): bigint {
  const match = pattern.exec(String(text).trim());
  const [, whole = '', fraction = '', exponent, suffix = ''] = match ?? [];
  if (match === null || whole + fraction === '') {
    throw new SealpodError('REQUEST_FORMAT', `${JSON.stringify(text)} is not a quantity`, {
      expected: 'a number that is not negative, e.g. 500m, 1.5, 128Mi',
      actual: String(text),
    });
  }
  const [factor, divisor] = suffixes[suffix] ?? [1n, 1n];
  const power = Number(exponent ?? 0);
  const numerator = BigInt(whole + fraction) * factor * 1000n * 10n ** BigInt(Math.max(power, 0));
  const denominator = divisor * 10n ** BigInt(fraction.length) * 10n ** BigInt(Math.max(-power, 0));
  return (numerator + denominator - 1n) / denominator;
}

/** Smallest integer that is not below `value / unit`. */
export function ceilingOf(value: bigint, unit: bigint): number {
  return Number((value + unit - 1n) / unit);
}
