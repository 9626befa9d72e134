import { randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { fuzz, knownCalls } from './fuzz.ts';
import { targets } from './targets.ts';

describe('whatever comes is answered with a verdict or a typed error', () => {
  it.for(Object.entries(targets))('%s', { timeout: 120_000 }, async ([name, target], context) => {
    if (target.mint === undefined && target.seeds(await knownCalls()).length === 0)
      context.skip('its seeds are vectors, which are absent');
    const { inputs, codes } = await fuzz({ target: name, seed: randomInt(2 ** 31), milliseconds: 300, least: 20 });
    expect(inputs).toBeGreaterThanOrEqual(20);
    expect(Object.keys(codes).filter((code) => code !== 'OK')).not.toEqual([]);
  });
});
