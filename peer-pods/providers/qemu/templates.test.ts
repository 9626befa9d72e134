import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identityOf } from '@sealpod/processes';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { TpmAuthority } from '../../pod-vm/tpm-authority.ts';
import { Templates } from './templates.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sp-templates-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('removes everything, also the machine of a template that somebody was killed while making', async () => {
  const directory = join(folder, 'templates');
  const vm = join(directory, 'making', 'vm');
  mkdirSync(vm, { recursive: true });
  mkdirSync(join(directory, 'aa'));
  writeFileSync(join(directory, 'aa', 'state'), 'state');
  const program = join(folder, 'qemu-system-x86_64');
  copyFileSync('/bin/dash', program);
  const children = [`template@${vm}/`, `template@${folder}/other/making/vm/`].map((name) =>
    spawn(program, ['-c', 'read line', '-name', name], { stdio: ['pipe', 'ignore', 'ignore'] }),
  );
  const [own, foreign] = children.map(({ pid = 0 }) => pid);
  try {
    const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
    const templates = new Templates({ directory, owner, tpmAuthority: {} as TpmAuthority });
    await expect.poll(() => identityOf(own ?? 0)).toBeDefined();
    await templates.remove();
    await expect.poll(() => identityOf(own ?? 0)).toBeUndefined();
    expect(identityOf(foreign ?? 0)).toBeDefined();
    expect(existsSync(directory)).toBe(false);
    await templates.remove();
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
});
