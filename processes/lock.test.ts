import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { identityOf } from './identity.ts';
import { takeLock, waitForLock } from './lock.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-lock-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const nobodyWaits = (): never => expect.fail('nobody holds it');

test('a lock is held until it is released', async () => {
  const path = join(folder, 'lock');
  const lock = await takeLock(path, 'test');
  await expect(takeLock(path, 'test')).rejects.toMatchObject({
    code: 'STORAGE',
    message: expect.stringContaining(`another test (process ${process.pid}) holds ${path}`),
  });
  await lock.release();
  expect(existsSync(path)).toBe(false);
});

test('one that waits is told once for whom, and has it when that one is done', async () => {
  const path = join(folder, 'lock');
  const first = await takeLock(path, 'test');
  const told: number[] = [];
  const second = waitForLock(path, (pid) => {
    told.push(pid);
    setTimeout(() => void first.release(), 500);
  });
  await (await second).release();
  expect(told).toEqual([process.pid]);
});

test('the lock of a process that is gone, and one that was never written, are taken over', async () => {
  const path = join(folder, 'lock');
  const child = spawn('sleep', ['60']);
  const identity = identityOf(child.pid ?? Number.NaN);
  writeFileSync(path, JSON.stringify(identity));
  await expect(takeLock(path, 'test')).rejects.toMatchObject({ code: 'STORAGE' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
  await (await waitForLock(path, nobodyWaits)).release();
  writeFileSync(path, '');
  await (await waitForLock(path, nobodyWaits)).release();
});
