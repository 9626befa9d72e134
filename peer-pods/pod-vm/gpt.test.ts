import { describe, expect, it } from 'vitest';
import { layOutGpt, readGpt } from './gpt.ts';

const diskId = '5ea19d00-0000-4000-8000-000000000010';
const partitions = [
  {
    name: 'boot',
    type: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
    id: '5ea19d00-0000-4000-8000-000000000011',
    size: 3_000_000,
  },
  { name: 'root', type: '4f68bce3-e8cd-4db1-96e7-fbcaf984b709', id: '5ea19d00-0000-4000-8000-000000000012', size: 512 },
];

describe('GPT', () => {
  it('reads back what it wrote, with the event that firmware measures', () => {
    const layout = layOutGpt(diskId, partitions);
    const { event, partitions: read } = readGpt(layout.head);
    expect(read.map(({ name, type, id, offset }) => ({ name, type, id, offset }))).toEqual(
      layout.partitions.map(({ name, type, id, offset }) => ({ name, type, id, offset })),
    );
    expect(event.length).toBe(92 + 8 + 2 * 128);
    expect(event.readBigUInt64LE(92)).toBe(2n);
    expect(layout.diskSize % (1 << 20)).toBe(0);
  });

  it.each([512 + 24, 512 + 80, 1024 + 3])('refuses a changed byte %i', (at) => {
    const head = Buffer.from(layOutGpt(diskId, partitions).head);
    head[at] = (head[at] ?? 0) ^ 1;
    expect(() => readGpt(head)).toThrow(/checksum/);
  });

  it('refuses a disk without table and one that is cut off', () => {
    expect(() => readGpt(Buffer.alloc(34 * 512))).toThrow(/no GUID partition table/);
    expect(() => readGpt(Buffer.alloc(512))).toThrow(/cut off/);
  });
});
