import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openLog } from '../log.ts';
import type { Copy } from './plan.ts';
import { VolumeUpdates } from './volume-updates.ts';

let root: string;
let volume: string;
let sent: Copy[];
const log = openLog('/dev/null', {}, false);

/** Replaces a volume's content as the kubelet does: a new folder, then one rename of the link to it. */
function turn(folder: string): void {
  mkdirSync(join(volume, folder));
  symlinkSync(folder, join(volume, '..data_tmp'));
  renameSync(join(volume, '..data_tmp'), join(volume, '..data'));
}

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sealpod-volume-'));
  volume = join(root, 'pods/uid/volumes/kubernetes.io~configmap/settings');
  mkdirSync(volume, { recursive: true });
  sent = [];
  turn('..1');
});
afterEach(() => rmSync(root, { recursive: true }));

const send = async (copy: Copy): Promise<void> => {
  sent.push(copy);
};

test('a volume is sent again when the kubelet has turned its link, and only then', async () => {
  const copy = { source: volume, target: '/guest/settings' };
  const updates = new VolumeUpdates([copy], send, log);
  updates.begin();
  turn('..2');
  await vi.waitFor(() => expect(sent).toEqual([copy]));
  writeFileSync(join(volume, 'other'), 'not the kubelet');
  turn('..3');
  await vi.waitFor(() => expect(sent).toEqual([copy, copy]));
  updates.close();
});

test('what changes while the volume is first copied is sent after it', async () => {
  const updates = new VolumeUpdates([{ source: volume, target: '/t' }], send, log);
  turn('..2');
  await new Promise((resolve) => setImmediate(resolve));
  expect(sent).toEqual([]);
  updates.begin();
  await vi.waitFor(() => expect(sent).toHaveLength(1));
  updates.close();
});

test('changes while one is sent are sent next; failures are tried again', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  try {
    let failures = 1;
    const updates = new VolumeUpdates(
      [{ source: volume, target: '/t' }],
      async (copy) => {
        if (failures-- > 0) throw new Error('the guest is busy');
        await send(copy);
      },
      log,
    );
    turn('..2');
    updates.begin();
    while (failures > 0) await new Promise((resolve) => setImmediate(resolve));
    expect(sent).toEqual([]);
    await vi.advanceTimersByTimeAsync(2000);
    expect(sent).toHaveLength(1);
    updates.close();
  } finally {
    vi.useRealTimers();
  }
});

test('volumes that the kubelet does not replace are not watched', () => {
  const updates = new VolumeUpdates([{ source: join(root, 'absent/etc-hosts'), target: '/t' }], send, log);
  updates.close();
  expect(sent).toEqual([]);
});
