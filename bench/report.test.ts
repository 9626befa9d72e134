import { expect, it } from 'vitest';
import { figure, ratio } from './measure.ts';
import { renderText } from './report.ts';

it('names the machine, both sides of each ratio, and why a case was skipped or failed', () => {
  const [ours, peer] = [figure('ours', 'ms', [30, 20, 40]), figure('theirs', 'ms', [10, 15, 20])];
  const text = renderText({
    machine: {
      processor: 'a processor',
      processors: 2,
      memoryMiB: 4096,
      kernel: '6.1',
      accelerator: 'tcg',
      load: 0.1,
      node: 'v24',
      programs: { runc: '1.1.5', skopeo: undefined },
      date: '2026-01-01T00:00:00.000Z',
    },
    results: [
      {
        name: 'one',
        definition: 'a',
        seconds: 1,
        measured: { figures: [ours, peer], ratios: [ratio(ours, peer)], notes: ['n'] },
      },
      { name: 'two', definition: 'b', seconds: 0, skipped: 'not installed: skopeo' },
      { name: 'three', definition: 'c', seconds: 0, failure: 'broke' },
    ],
  });
  expect(text).toContain('2 × a processor, 4096 MiB, Linux 6.1, machines run on tcg');
  expect(text).toContain('runc 1.1.5, skopeo not installed');
  expect(text).toMatch(/ours +30\.0 ms +\[20\.0, 40\.0\] +of 3/);
  expect(text).toContain('ratio 2.00 = ours 30.0 ms / theirs 15.0 ms');
  expect(text).toContain('skipped: not installed: skopeo');
  expect(text).toContain('FAILED: broke');
});
