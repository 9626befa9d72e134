import { setTimeout as delay } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { WorkQueue } from './work-queue.ts';

test('does a key once however often it is added, and again where it is added meanwhile', async () => {
  const done: string[] = [];
  const gate = Promise.withResolvers<void>();
  const queue = new WorkQueue({
    work: async (key) => {
      done.push(key);
      if (done.length === 1) await gate.promise;
      return {};
    },
    failed: () => undefined,
  });
  queue.add('a');
  queue.add('a');
  queue.add('b');
  await vi.waitFor(() => expect(done).toEqual(['a']));
  queue.add('a');
  queue.add('a');
  gate.resolve();
  await vi.waitFor(() => expect(done).toEqual(['a', 'b', 'a']));
  await queue.stop();
});

test('tries again what failed, later each time, and forgets failures after a success', async () => {
  const delays: number[] = [];
  let failures = 3;
  const queue = new WorkQueue({
    work: () => (failures-- > 0 ? Promise.reject(new Error('not yet')) : Promise.resolve({})),
    failed: (_key, _thrown, delayMs) => delays.push(delayMs),
    firstRetryMs: 4,
    mostRetryMs: 10,
  });
  queue.add('a');
  await vi.waitFor(() => expect(failures).toBe(-1));
  expect(delays).toEqual([4, 8, 10]);
  failures = 1;
  queue.add('a');
  await vi.waitFor(() => expect(failures).toBe(-1));
  expect(delays).toEqual([4, 8, 10, 4]);
  await queue.stop();
});

test('looks again after the time that was asked for, and stops with nothing left to do', async () => {
  let count = 0;
  const queue = new WorkQueue({
    work: () => {
      count += 1;
      return Promise.resolve({ againAfterMs: 5 });
    },
    failed: () => undefined,
  });
  queue.add('a');
  await vi.waitFor(() => expect(count).toBeGreaterThan(3));
  await queue.stop();
  const stopped = count;
  queue.add('a');
  await delay(30);
  expect(count).toBe(stopped);
});
