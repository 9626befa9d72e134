import { expect, it } from 'vitest';
import { startsFromTemplate, wakeLine } from './template-words.ts';

it('is told a template by the whole word of its command line', () => {
  expect(startsFromTemplate('quiet roothash=aa sealpod.template=1')).toBe(true);
  for (const line of ['quiet', 'xsealpod.template=1', 'sealpod.template=10', 'sealpod.template'])
    expect(startsFromTemplate(line)).toBe(false);
});

it('wakes with one line of four words, which a shell reads', () => {
  const now = new Date('2026-01-02T03:04:05.600Z');
  expect(wakeLine(now, '02:00:00:00:00:01', Buffer.from('beef', 'hex'))).toBe(
    'sealpod-wake 1767323046 02:00:00:00:00:01 beef\n',
  );
  expect(wakeLine(now, undefined, Buffer.alloc(1))).toBe('sealpod-wake 1767323046 none 00\n');
});
