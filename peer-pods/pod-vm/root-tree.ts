import { chmod, cp, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { libraryClosure } from './libraries.ts';
import { lintRootTree } from './lint.ts';

/** Programs of the guest that come from Debian packages. */
const programs = [
  'usr/bin/tini',
  'usr/bin/crun',
  'usr/bin/mount',
  'usr/bin/umount',
  'usr/bin/ip',
  'usr/bin/mkfifo',
  // For persistent volumes.
  'usr/sbin/cryptsetup',
  'usr/sbin/mke2fs',
];

const emptyDirectories = [
  'dev',
  'etc',
  'proc',
  'run',
  'sys',
  'tmp',
  'usr/bin',
  'usr/sbin',
  'usr/lib',
  'usr/lib64',
  'var',
];

/** Merged /usr, and what must be writable while the root file system is not. */
const links: Readonly<Record<string, string>> = {
  bin: 'usr/bin',
  sbin: 'usr/sbin',
  lib: 'usr/lib',
  lib64: 'usr/lib64',
  'var/run': '../run',
  'var/tmp': '../tmp',
};

export const releaseText = 'ID=sealpod\nNAME="sealpod pod VM"\nVARIANT_ID=released\n';
/** Of the same length: what an image says whose root file system was altered on purpose, and nothing else changed. */
export const alteredReleaseText = releaseText.replace('released', 'altered!');

const textFiles: Readonly<Record<string, string>> = {
  'etc/os-release': releaseText,
  'etc/hosts': '127.0.0.1 localhost\n::1 localhost\n',
  'etc/passwd': 'root:x:0:0:root:/:/nonexistent\n',
  'etc/group': 'root:x:0:\n',
  // Empty: the guest agent mounts the pod's over it.
  'etc/resolv.conf': '',
};

export interface RootTreeInput {
  readonly packagesRoot: string;
  readonly nodeBinary: string;
  readonly guestAgentDirectory: string;
}

/**
 * Writes the files of the root file system into `target`, which must not exist, and refuses a tree that holds what a
 * confidential pod VM must not. Returns the files of the packages that were taken, as paths in `packagesRoot`.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where something is missing or refused.
 */
export async function writeRootTree(target: string, input: RootTreeInput): Promise<string[]> {
  for (const directory of emptyDirectories) await mkdir(join(target, directory), { recursive: true });
  for (const [path, to] of Object.entries(links)) await symlink(to, join(target, path));
  for (const [path, content] of Object.entries(textFiles)) await writeFile(join(target, path), content);
  const addons = await nodeAddons(input.guestAgentDirectory);
  const taken = await libraryClosure(input.packagesRoot, [...programs, input.nodeBinary], addons);
  for (const file of taken) {
    const path = join(target, file.path);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, file.content, { mode: 0o755 });
  }
  await cp(input.guestAgentDirectory, join(target, 'sealpod'), { recursive: true, dereference: true });
  await normalizeModes(target);
  await lintRootTree(target);
  return taken.map((file) => file.source).filter((source) => !source.startsWith('..'));
}

async function nodeAddons(directory: string): Promise<string[]> {
  const names = await readdir(directory, { recursive: true });
  return names.filter((name) => name.endsWith('.node')).map((name) => join(directory, name));
}

/** Modes must not depend on the umask of whoever builds: everything readable, programs and directories executable. */
async function normalizeModes(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await normalizeModes(path);
    else if (entry.isFile()) await chmod(path, isProgram(path) ? 0o755 : 0o644);
  }
}

function isProgram(path: string): boolean {
  return /\/usr\/(bin|sbin|lib|lib64)\//.test(path) || /\.(so|node)(\.|$)/.test(path);
}
