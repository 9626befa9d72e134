import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { killDescendants, killProcess, runningProcesses, sharesRoot } from './table.ts';

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
    // The signal is sent to it; when the kernel is done with it is the kernel's affair.
    await vi.waitFor(() =>
      expect(runningProcesses().find(({ pid }) => pid === grandchild)?.arguments ?? []).toEqual([]),
    );
    expect(runningProcesses().find(({ pid }) => pid === spared.pid)?.arguments).toEqual(['sleep', '60']);
    spared.kill('SIGKILL');
    await once(spared, 'exit');
    expect(() => killProcess(spared.pid ?? 0)).not.toThrow();
  });

  it('tells a process in another root directory, where the same path is another file', async (context) => {
    context.skip(process.getuid?.() !== 0 || !existsSync('/bin/busybox'), 'needs root and /bin/busybox');
    const root = mkdtempSync(join(tmpdir(), 'sealpod-root-'));
    copyFileSync('/bin/busybox', join(root, 'busybox'));
    const there = spawn('chroot', [root, '/busybox', 'sh', '-c', 'echo begun; exec /busybox sleep 60'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const here = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore'] });
    try {
      await Promise.all([once(there.stdout, 'data'), once(here, 'spawn')]);
      expect([here, there].map(({ pid }) => sharesRoot(pid ?? 0))).toEqual([true, false]);
    } finally {
      const ended = Promise.all([once(there, 'close'), once(here, 'close')]);
      there.kill('SIGKILL');
      here.kill('SIGKILL');
      await ended;
      rmSync(root, { recursive: true, force: true });
    }
    expect(sharesRoot(here.pid ?? 0)).toBe(false);
  });
});
