import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeWorkDirectory, removeAbandonedWork } from './work-directory.ts';

let parent: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'sealpod-work-'));
});
afterEach(() => rmSync(parent, { recursive: true, force: true }));

/** The number of a process that has ended. */
async function endedProcess(): Promise<number> {
  const child = spawn('true');
  await once(child, 'exit');
  return child.pid ?? 0;
}

describe('work directories', () => {
  it('removes what a killed process left, with the programs that still work in it', async () => {
    const abandoned = join(parent, `build-${await endedProcess()}-AbCdEf`);
    mkdirSync(abandoned);
    const inside = spawn('sleep', ['60'], { cwd: abandoned, stdio: 'ignore' });
    const naming = spawn('sh', ['-c', 'sleep 60; :', join(abandoned, 'root.erofs')], { stdio: 'ignore' });
    const ended = Promise.all([once(inside, 'exit'), once(naming, 'exit')]);
    await Promise.all([once(inside, 'spawn'), once(naming, 'spawn')]);
    await makeWorkDirectory(parent, 'build');
    expect(existsSync(abandoned)).toBe(false);
    expect((await ended).map(([, signal]) => signal)).toEqual(['SIGKILL', 'SIGKILL']);
  });

  it("leaves a living process's work, other purposes and other names alone", async () => {
    const own = await makeWorkDirectory(parent, 'build');
    const gone = await endedProcess();
    const kept = [own, ...[`alter-${gone}-AbCdEf`, `build-${gone}`, 'default'].map((name) => join(parent, name))];
    for (const path of kept.slice(1)) mkdirSync(path);
    await removeAbandonedWork(parent, ['build']);
    expect(kept.filter((path) => !existsSync(path))).toEqual([]);
  });

  it('does nothing where there is no parent', async () => {
    await expect(removeAbandonedWork(join(parent, 'absent'), ['build'])).resolves.toBeUndefined();
  });
});
