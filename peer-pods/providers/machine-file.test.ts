import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readEnd } from './machine-file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-machine-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('reads the end of a file', async () => {
  const path = join(folder, 'console.log');
  writeFileSync(path, 'begin end');
  expect((await readEnd(path, 3)).toString()).toBe('end');
  expect((await readEnd(path, 100)).toString()).toBe('begin end');
});

it('an escaped hypervisor cannot make the adaptor read another file, or wait for ever', async () => {
  const secret = join(folder, 'secret');
  writeFileSync(secret, 'of the host');
  symlinkSync(secret, join(folder, 'link'));
  await expect(readEnd(join(folder, 'link'), 100)).rejects.toMatchObject({ code: 'ELOOP' });
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  await expect(readEnd(join(folder, 'pipe'), 100)).rejects.toThrow('is not a file');
});
