import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type CpioEntry, writeCpio } from './cpio.ts';

const entries: readonly CpioEntry[] = [
  { path: 'init', kind: 'file', content: Buffer.from('#!/bin/busybox sh\n'), mode: 0o755 },
  { path: 'usr/lib/a.so', kind: 'file', content: Buffer.from('odd'), mode: 0o644 },
  { path: 'bin', kind: 'link', target: 'usr/bin' },
  { path: 'proc', kind: 'directory' },
];
const cpio = '/usr/bin/cpio';

describe('writeCpio', () => {
  it('does not depend on the order of entries', () => {
    expect(writeCpio([...entries].reverse())).toEqual(writeCpio(entries));
  });

  it('writes device nodes with their numbers, owner root and time 0', () => {
    const archive = writeCpio([{ path: 'console', kind: 'character device', major: 5, minor: 1 }]);
    const fields = Array.from({ length: 13 }, (_, index) =>
      Number.parseInt(archive.toString('latin1', 6 + index * 8, 14 + index * 8), 16),
    );
    expect(archive.toString('latin1', 0, 6)).toBe('070701');
    expect(fields).toEqual([1, 0o020600, 0, 0, 1, 0, 0, 0, 0, 5, 1, 8, 0]);
    expect(archive.length % 4).toBe(0);
  });

  it('is read back by cpio', (context) => {
    if (!existsSync(cpio)) context.skip('cpio is not installed');
    const directory = mkdtempSync(join(tmpdir(), 'sealpod-cpio-'));
    try {
      const options = ['--extract', '--make-directories', '--no-absolute-filenames', '--quiet'];
      execFileSync(cpio, options, { cwd: directory, input: writeCpio(entries) });
      expect(readFileSync(join(directory, 'usr/lib/a.so'), 'utf8')).toBe('odd');
      expect(readlinkSync(join(directory, 'bin'))).toBe('usr/bin');
      expect(lstatSync(join(directory, 'init')).mode & 0o777).toBe(0o755);
      expect(lstatSync(join(directory, 'proc')).isDirectory()).toBe(true);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
