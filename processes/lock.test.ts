import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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

test('of many processes that wait for the lock of one that is gone, one at a time has it', {
  timeout: 60_000,
}, async () => {
  const path = join(folder, 'lock');
  const counter = join(folder, 'counter');
  const [processes, rounds] = [4, 25];
  const script = `
    import { readFileSync, writeFileSync } from 'node:fs';
    import { waitForLock } from ${JSON.stringify(import.meta.resolve('./lock.ts'))};
    for (let round = 0; round < ${rounds}; round++) {
      const lock = await waitForLock(${JSON.stringify(path)}, () => undefined);
      const count = Number(readFileSync(${JSON.stringify(counter)}, 'utf8'));
      await new Promise((resolve) => setTimeout(resolve, 1));
      writeFileSync(${JSON.stringify(counter)}, String(count + 1));
      // Every other time as by one that is killed while it holds it.
      if (round % 2 === 0) await lock.release();
      else writeFileSync(${JSON.stringify(path)}, JSON.stringify({ pid: 1, startTime: 'gone' }));
    }`;
  writeFileSync(counter, '0');
  writeFileSync(path, JSON.stringify({ pid: 1, startTime: 'gone' }));
  const workers = Array.from({ length: processes }, () =>
    spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'ignore', 'inherit'] }),
  );
  const codes = await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve))));
  expect(codes).toEqual(Array(processes).fill(0));
  expect(readFileSync(counter, 'utf8')).toBe(String(processes * rounds));
  expect(readdirSync(folder).sort()).toEqual(['counter']);
});
