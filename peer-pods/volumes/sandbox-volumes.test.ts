import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { undoSandbox } from '../adaptor/cleanup.ts';
import { Journal, type SandboxSpec } from '../adaptor/journal.ts';
import type { Provider, VolumeEffect } from '../providers/provider.ts';
import { SandboxVolumes } from './sandbox-volumes.ts';

let folder: string;
let journal: Journal;
let calls: string[];
let fails: boolean;
const spec: SandboxSpec = { id: 's1', name: 'podvm-a', directory: '/nowhere/s1', vcpus: 1, memoryMiB: 512 };
const reference = { sandboxId: spec.id, name: spec.name, directory: spec.directory };

/** Notes what it is asked, and what of it the journal had by then. */
const provider: Provider = {
  name: 'test',
  createInstance: async () => {
    throw new Error('not used');
  },
  findInstance: async () => undefined,
  deleteInstance: async () => void calls.push('delete'),
  listInstances: async () => [],
  volumes: {
    addressOf: ({ slot }) => ({ driver: 'scsi', source: `0:${slot}` }),
    attach: async (_reference, volume) => {
      calls.push(`attach ${volume.slot} ${volume.device}${known(volume) ? '' : ' UNKNOWN'}`);
      if (fails) throw new SealpodError('HYPERVISOR', 'no');
    },
    detach: async (_reference, volume) => void calls.push(`detach ${volume.slot}${known(volume) ? '' : ' UNKNOWN'}`),
  },
};
const effects = () =>
  (journal.records.get('s1')?.effects ?? []).map(({ effect, completed }) => ({ effect, completed }));
const known = (volume: VolumeEffect) =>
  effects().some(({ effect }) => JSON.stringify(effect) === JSON.stringify(volume));
const volumes = () => new SandboxVolumes(reference, { journal, provider });
const request = (volumeId: string, device = `/dev/${volumeId}`) => ({ volumeId, device, readOnly: false });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sp-volumes-'));
  journal = await Journal.open(folder);
  calls = [];
  fails = false;
  await journal.append({ type: 'sandbox', spec });
  await journal.append({ type: 'phase', sandboxId: 's1', phase: 'running' });
});
afterEach(async () => {
  await journal.close();
  rmSync(folder, { recursive: true, force: true });
});

it('notes each volume before it is plugged in, gives each a slot, and the same answer again', async () => {
  const table = volumes();
  const [a, b] = await Promise.all([table.attach(request('a')), table.attach(request('b'))]);
  expect([a.source, b.source]).toEqual(['0:0', '0:1']);
  expect(a.serial).toMatch(/^[0-9a-f]{20}$/);
  expect(await table.attach(request('a'))).toEqual(a);
  expect(calls).toEqual(['attach 0 /dev/a', 'attach 1 /dev/b']);
  await expect(table.attach(request('a', '/dev/z'))).rejects.toMatchObject({ code: 'REQUEST_FORMAT' });
  await table.detach('a');
  await table.detach('a');
  expect((await table.attach(request('c'))).source).toBe('0:0');
  expect(calls.slice(2)).toEqual(['detach 0', 'attach 0 /dev/c']);
});

it('a failure leaves nothing, and a restart finishes what an earlier process only meant to do', async () => {
  fails = true;
  await expect(volumes().attach(request('a'))).rejects.toMatchObject({ code: 'HYPERVISOR' });
  expect(effects()).toEqual([]);
  fails = false;
  const serial = (await volumes().attach(request('a'))).serial;
  // As after a death between the two entries.
  await journal.append({
    type: 'intend',
    sandboxId: 's1',
    effect: { kind: 'volume', slot: 0, serial, device: '/dev/a', readOnly: false },
  });
  await journal.close();
  journal = await Journal.open(folder);
  calls = [];
  expect(await volumes().attach(request('a'))).toMatchObject({ source: '0:0', serial });
  expect(calls).toEqual(['attach 0 /dev/a']);
  expect(effects()).toMatchObject([{ completed: true }]);
  const record = journal.records.get('s1');
  if (record === undefined) throw new Error('no record');
  await undoSandbox(record, provider);
  expect(calls.slice(1)).toEqual(['delete', 'detach 0']);
});

it('needs a running machine, a provider with volumes, and a device by its path', async () => {
  const { volumes: _, ...without } = provider;
  const table = new SandboxVolumes(reference, { journal, provider: without });
  await expect(table.attach(request('a'))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  for (const wrong of [request('', '/dev/a'), request('a', 'dev/a'), request('a', '/dev/a\0')])
    await expect(volumes().attach(wrong)).rejects.toMatchObject({ code: 'REQUEST_FORMAT' });
  await journal.append({ type: 'phase', sandboxId: 's1', phase: 'stopping' });
  await expect(volumes().attach(request('a'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  expect(calls).toEqual([]);
});
