import { describe, expect, it } from 'vitest';
import { figure, inTurn, ratio } from './measure.ts';

describe('figure', () => {
  it('takes the middle, or the mean of the two in the middle', () => {
    expect(figure('a', 'ms', [3, 1, 10])).toMatchObject({ median: 3, smallest: 1, largest: 10, runs: 3 });
    expect(figure('a', 'ms', [4, 1, 2, 10]).median).toBe(3);
    expect(figure('a', 'ms', [7]).median).toBe(7);
  });

  it('refuses nothing and what is no number', () => {
    expect(() => figure('a', 'ms', [])).toThrow(RangeError);
    expect(() => figure('a', 'ms', [1, Number.NaN])).toThrow(RangeError);
  });
});

it('a ratio needs one unit', () => {
  expect(ratio(figure('a', 'ms', [6]), figure('b', 'ms', [3])).value).toBe(2);
  expect(() => ratio(figure('a', 'ms', [6]), figure('b', 's', [3]))).toThrow(RangeError);
});

it('inTurn alternates and does not count the first round', async () => {
  const order: string[] = [];
  let count = 0;
  const side = (name: string) => async () => {
    order.push(name);
    return count++;
  };
  expect(await inTurn(2, { a: side('a'), b: side('b') })).toEqual({ a: [2, 4], b: [3, 5] });
  expect(order).toEqual(['a', 'b', 'a', 'b', 'a', 'b']);
});
