import { randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { allCalls } from '../portable/testing/calls.ts';
import { fuzz } from './fuzz.ts';
import { targets } from './targets.ts';

describe('whatever comes is answered with a verdict or a typed error', () => {
  it.each(Object.entries(targets))('%s', { timeout: 60_000 }, async (name, target) => {
    const calls = (await allCalls()).map(({ call }) => call);
    if (target.seeds(calls).length === 0) {
      process.stdout.write(`fuzz target ${name} is skipped: its seeds are vectors, which are absent\n`);
      return;
    }
    const { inputs, codes } = await fuzz({ target: name, seed: randomInt(2 ** 31), milliseconds: 700 });
    expect(inputs).toBeGreaterThan(5);
    expect(Object.keys(codes).filter((code) => code !== 'OK')).not.toEqual([]);
  });
});
