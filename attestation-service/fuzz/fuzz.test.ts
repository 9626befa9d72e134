import { randomInt } from 'node:crypto';
import { expect, it } from 'vitest';
import { fuzz } from './fuzz.ts';
import { targets } from './targets.ts';

it.each(Object.keys(targets))(
  '%s answers whatever comes with a verdict or a typed error',
  { timeout: 60_000 },
  async (target) => {
    const { inputs, codes } = await fuzz({ target, seed: randomInt(2 ** 31), milliseconds: 700 });
    expect(inputs).toBeGreaterThan(5);
    expect(Object.keys(codes).filter((code) => code !== 'OK')).not.toEqual([]);
  },
);
