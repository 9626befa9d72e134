import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { killDescendants, killProcess, runningProcesses } from './table.ts';

describe('the table of processes', () => {
  it('kills descendants, with theirs, and spares those named', async () => {
    const spared = spawn('sleep', ['60'], { stdio: 'ignore' });
    const family = spawn('sh', ['-c', 'sleep 61 & echo $!; wait'], { stdio: ['ignore', 'pipe', 'ignore'] });
    await once(spared, 'spawn');
    const grandchild = Number(String((await once(family.stdout, 'data'))[0]));
    const ended = once(family, 'exit');
    const others = runningProcesses().filter(({ parent }) => parent === process.pid);
    const keep = others.map(({ pid }) => pid).filter((pid) => pid !== family.pid);
    killDescendants(new Set(keep));
    expect((await ended)[1]).toBe('SIGKILL');
    expect(runningProcesses().find(({ pid }) => pid === grandchild)?.arguments ?? []).toEqual([]);
    expect(runningProcesses().find(({ pid }) => pid === spared.pid)?.arguments).toEqual(['sleep', '60']);
    spared.kill('SIGKILL');
    await once(spared, 'exit');
    expect(() => killProcess(spared.pid ?? 0)).not.toThrow();
  });
});
