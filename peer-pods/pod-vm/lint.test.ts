import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lintRootTree } from './lint.ts';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sealpod-lint-'));
  for (const path of ['sealpod/guest-agent.mjs', 'usr/bin/node', 'usr/bin/tini', 'usr/bin/crun']) write(path, '');
});

afterEach(() => rmSync(root, { recursive: true }));

function write(path: string, content: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
}

describe('G-07: root file system', () => {
  it('passes with the required programs only, and with a policy that denies', async () => {
    write('sealpod/default.rego', 'package agent_policy\n\ndefault ExecProcessRequest := false\n');
    await expect(lintRootTree(root)).resolves.toBeUndefined();
  });

  it.each([
    'bin/sh',
    'usr/bin/bash',
    'usr/sbin/sshd',
    'usr/bin/apt-get',
    'usr/bin/dpkg',
    'usr/bin/busybox',
    'sealpod/npm',
  ])('is refused with %s', async (path) => {
    write(path, '');
    await expect(lintRootTree(root)).rejects.toMatchObject({
      code: 'PROVIDER_IMAGE',
      message: expect.stringContaining(path),
    });
  });

  it('is refused with a link to a shell', async () => {
    symlinkSync('node', join(root, 'usr/bin/sh'));
    await expect(lintRootTree(root)).rejects.toThrow(/usr\/bin\/sh is a forbidden program/);
  });

  it.each(['default ExecProcessRequest := true', 'default CopyFileRequest = true', '\tdefault allow := true'])(
    'is refused with the policy %s',
    async (rule) => {
      write('sealpod/policies/default.rego', `package agent_policy\n\n${rule}\n`);
      await expect(lintRootTree(root)).rejects.toThrow(/permits by default/);
    },
  );

  it('is refused with a set-user-id program and without its agent', async () => {
    chmodSync(join(root, 'usr/bin/crun'), 0o4755);
    rmSync(join(root, 'sealpod/guest-agent.mjs'));
    await expect(lintRootTree(root)).rejects.toThrow(/guest-agent\.mjs is missing; usr\/bin\/crun is set-user-id/);
  });
});
