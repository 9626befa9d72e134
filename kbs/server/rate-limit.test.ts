import { describe, expect, it } from 'vitest';
import { clientOf, RateLimiter } from './rate-limit.ts';

describe('clientOf', () => {
  it.each([
    ['10.0.0.1', '10.0.0.1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:DB8:1:2::1', '2001:db8:1:2'],
    ['2001:db8::1', '2001:db8:0:0'],
    ['2001:0db8:0000:0000:0000:0000:0000:0001', '2001:db8:0:0'],
    ['::1', '0:0:0:0'],
    ['fe80::1%eth0', 'fe80:0:0:0'],
  ])('%s is %s', (address, client) => {
    expect(clientOf(address)).toBe(client);
  });
});

describe('RateLimiter', () => {
  const rates = (perSecond: number, burst: number) => ({ perSecond, burst });

  it('refills with time, up to the burst', () => {
    let now = 0;
    const limiter = new RateLimiter({ perAddress: rates(10, 2), global: rates(1000, 1000) }, () => now);
    expect([1, 2, 3].map(() => limiter.take('a.a'))).toEqual([true, true, false]);
    now = 100;
    expect([1, 2].map(() => limiter.take('a.a'))).toEqual([true, false]);
    now = 60_000;
    expect([1, 2, 3].map(() => limiter.take('a.a'))).toEqual([true, true, false]);
  });

  it('keeps addresses apart, and all of them under one limit', () => {
    const limiter = new RateLimiter({ perAddress: rates(1, 2), global: rates(1, 3) }, () => 0);
    expect(
      ['10.0.0.1', '10.0.0.1', '10.0.0.1', '10.0.0.2', '10.0.0.3'].map((address) => limiter.take(address)),
    ).toEqual([true, true, false, true, false]);
  });

  it('does not go wrong when the clock is set back', () => {
    let now = 10_000;
    const limiter = new RateLimiter({ perAddress: rates(1, 1), global: rates(100, 100) }, () => now);
    expect(limiter.take('10.0.0.1')).toBe(true);
    now = 0;
    expect(limiter.take('10.0.0.1')).toBe(false);
    now = 1000;
    expect(limiter.take('10.0.0.1')).toBe(true);
  });

  it('remembers a bounded number of addresses', () => {
    const limiter = new RateLimiter({ perAddress: rates(1, 1), global: rates(1e9, 1e9) }, () => 0);
    let taken = 0;
    for (let index = 0; index < 120_000; index += 1) {
      if (limiter.take(`10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`)) taken += 1;
    }
    expect(taken).toBe(120_000);
    // The first ones were forgotten, the last ones not.
    expect(limiter.take('10.0.0.0')).toBe(true);
    expect(limiter.take(`10.${119_999 >> 16}.${(119_999 >> 8) & 255}.${119_999 & 255}`)).toBe(false);
  });
});
