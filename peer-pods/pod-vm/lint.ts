import { lstat, readdir, readFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

/** Programs with which somebody inside could look around, install, or come in. */
const forbidden =
  /^(sh|bash|dash|ash|zsh|ksh|mksh|csh|tcsh|fish|busybox|toybox|apt.*|dpkg.*|yum|dnf|rpm|apk|pip\d*|npm|npx|corepack|ssh|sshd|ssh-.*|dropbear.*|telnet.*|agetty|getty|login|su|sudo|perl.*|python.*|gdb|strace|curl|wget|nc|ncat|socat|cloud-init)$/;

/** `default <something>Request := true` and the like, as published images once carried it. */
const permissiveDefault = /^\s*default\s+\w+\s*:?=\s*true\b/m;

const requiredFiles = ['sealpod/guest-agent.mjs', 'usr/bin/node', 'usr/bin/tini', 'usr/bin/crun'];
const maxPolicyBytes = 1 << 20;

/**
 * Refuses a root file system that holds a shell, a package manager, a remote login or an agent policy that permits by
 * default.
 *
 * @throws SealpodError `PROVIDER_IMAGE` with every finding.
 */
export async function lintRootTree(root: string): Promise<void> {
  const findings: string[] = [];
  for (const required of requiredFiles) {
    const found = await lstat(join(root, required)).catch(() => undefined);
    if (found?.isFile() !== true) findings.push(`${required} is missing`);
  }
  for (const path of await readdir(root, { recursive: true })) {
    findings.push(...(await lintFile(root, join(root, path))));
  }
  if (findings.length > 0) {
    throw new SealpodError('PROVIDER_IMAGE', `the root file system is refused: ${findings.sort().join('; ')}`, {
      expected: 'no shell, no package manager, no remote login, no permissive agent policy',
      actual: findings.join('; '),
    });
  }
}

async function lintFile(root: string, path: string): Promise<string[]> {
  const name = relative(root, path);
  const entry = await lstat(path);
  const findings: string[] = [];
  if (!entry.isDirectory() && forbidden.test(basename(path))) findings.push(`${name} is a forbidden program`);
  if (!entry.isFile()) return findings;
  if ((entry.mode & 0o6000) !== 0) findings.push(`${name} is set-user-id`);
  if (name.endsWith('.rego')) {
    if (entry.size > maxPolicyBytes) findings.push(`${name} is too large for a policy`);
    else if (permissiveDefault.test(await readFile(path, 'utf8'))) findings.push(`${name} permits by default`);
  }
  return findings;
}
