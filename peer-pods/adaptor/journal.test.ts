import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Effect } from '../providers/provider.ts';
import { Journal, type JournalEntry, type SandboxSpec } from './journal.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-journal-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const file = () => join(folder, 'journal.jsonl');
const spec = (id: string): SandboxSpec => ({
  id,
  name: `podvm-${id}`,
  directory: `/pods/${id}`,
  vcpus: 1,
  memoryMiB: 256,
});
const tap: Effect = { kind: 'tap', netnsPath: '/run/netns/a', name: 'tap0' };
const vm: Effect = { kind: 'process', role: 'vm', executable: 'qemu', marker: '/pods/a/vm' };

const story: JournalEntry[] = [
  { type: 'sandbox', spec: spec('a') },
  { type: 'intend', sandboxId: 'a', effect: tap },
  { type: 'complete', sandboxId: 'a', effect: tap },
  { type: 'sandbox', spec: spec('b') },
  { type: 'intend', sandboxId: 'a', effect: vm },
  { type: 'phase', sandboxId: 'b', phase: 'starting' },
  { type: 'complete', sandboxId: 'a', effect: vm, identity: { pid: 7, startTime: '99' } },
  { type: 'phase', sandboxId: 'a', phase: 'running' },
  { type: 'forget', sandboxId: 'b' },
];

const snapshot = (journal: Journal) => JSON.parse(JSON.stringify([...journal.records]));

async function written(entries: JournalEntry[]): Promise<unknown> {
  const journal = await Journal.open(folder);
  await Promise.all(entries.map((entry) => journal.append(entry)));
  await journal.close();
  return snapshot(journal);
}

it('gives back after a restart what was written, for its owner only', async () => {
  const before = await written(story);
  const journal = await Journal.open(folder);
  expect(snapshot(journal)).toEqual(before);
  expect(journal.records.get('a')).toMatchObject({
    phase: 'running',
    effects: [
      { effect: tap, completed: true },
      { effect: vm, completed: true, identity: { pid: 7, startTime: '99' } },
    ],
  });
  expect(journal.records.has('b')).toBe(false);
  expect(statSync(file()).mode & 0o777).toBe(0o600);
  await journal.close();
});

it('cut off at any byte, it opens with the entries before the cut', async () => {
  const text = story.map((entry) => `${JSON.stringify(entry)}\n`).join('');
  await fc.assert(
    fc.asyncProperty(fc.nat(text.length), async (length) => {
      writeFileSync(file(), text.slice(0, length));
      const journal = await Journal.open(folder);
      const cut = snapshot(journal);
      await journal.close();
      rmSync(file());
      expect(cut).toEqual(await written(story.slice(0, text.slice(0, length).split('\n').length - 1)));
      rmSync(file());
    }),
    { numRuns: 60 },
  );
});

it('a damaged line in its midst is not passed over', async () => {
  await written(story);
  for (const line of ['{"type":"phase"', '[]', '{"type":"other"}', '{"type":"forget","sandboxId":"unknown"}', '']) {
    const text = readFileSync(file(), 'utf8');
    appendFileSync(file(), `${line}\n`);
    await expect(Journal.open(folder)).rejects.toMatchObject({ code: 'STORAGE' });
    writeFileSync(file(), text);
  }
});

it('is written anew now and then, and does not grow without end', async () => {
  const journal = await Journal.open(folder);
  await journal.append({ type: 'sandbox', spec: spec('a') });
  for (let round = 0; round < 11; round++) {
    await Promise.all(
      Array.from({ length: 1000 }, () => journal.append({ type: 'phase', sandboxId: 'a', phase: 'starting' })),
    );
  }
  expect(readFileSync(file(), 'utf8').split('\n').length).toBeLessThan(3000);
  await journal.append({ type: 'phase', sandboxId: 'a', phase: 'running' });
  await journal.close();
  const again = await Journal.open(folder);
  expect(again.records.get('a')?.phase).toBe('running');
  await again.close();
});

it('says when it cannot be written', async () => {
  const journal = await Journal.open(folder);
  await journal.append({ type: 'sandbox', spec: spec('a') });
  await journal.close();
  await expect(journal.append({ type: 'forget', sandboxId: 'a' })).rejects.toMatchObject({ code: 'STORAGE' });
});
