import { chmod, cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { findProgram, libraryClosure } from '../pod-vm/libraries.ts';
import { extractPackages, fetchPackages, type PackageSelection } from '../pod-vm/packages.ts';

/** Programs that pod VMs on a node need and a node seldom has. */
const programs = ['qemu-system-x86_64', 'swtpm', 'swtpm_setup', 'swtpm_localca', 'swtpm_cert', 'certtool'] as const;

const selection: PackageSelection = {
  name: 'host-tools',
  kernel: false,
  standalone: ['ovmf', 'qemu-system-data'],
  linked: [
    'gnutls-bin',
    'libc6',
    'libgcc-s1',
    'libstdc++6',
    'qemu-system-common',
    'qemu-system-x86',
    'swtpm',
    'swtpm-libs',
    'swtpm-tools',
    'util-linux',
  ],
};

/** Loaded while the program runs, so no list of needs names it: the emulator for machines without KVM. */
const modules = ['usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so'];
const data = ['usr/share/qemu/kvmvapic.bin'];
const libraries = 'usr/lib/x86_64-linux-gnu';
const realPrograms = 'usr/libexec/sealpod';

/** Path of the firmware below the tree. */
export const firmwarePath = 'usr/share/ovmf/OVMF.fd';

/**
 * Starts a program of the tree by the tree's own dynamic linker, with the tree's libraries: nothing is asked of the host's.
 * The linker has the program's name, so the process has it, too, and QEMU finds modules and data beside itself.
 * `pwd -P`: an upgrade switches a link above this folder, and one start must not mix two releases.
 */
const launcher = (program: string): string => `#!/bin/sh
tree=$(cd "\${0%/*}/.." && pwd -P)
exec "$tree/usr/bin/${program}" --library-path "$tree/${libraries}" "$tree/${realPrograms}/${program}" "$@"
`;

/**
 * Fetches the Debian packages of the tree, and of Node and `nsenter`, and unpacks them into `packagesRoot`.
 *
 * @throws SealpodError `PREREQUISITE` where a package cannot be had
 */
export async function extractHostPackages(packagesRoot: string, cacheDirectory: string): Promise<void> {
  const packages = await fetchPackages(cacheDirectory, selection);
  await extractPackages(cacheDirectory, packages, packagesRoot);
  // swtpm's own library lies in a folder of its own, where only swtpm looks for it.
  await cp(join(packagesRoot, libraries, 'swtpm'), join(packagesRoot, libraries), { recursive: true });
}

/**
 * Writes QEMU, the software TPM with its tools, and the firmware into `target` with every library they need. `bin` has
 * one program each, which runs wherever the tree is put, on whatever distribution; it needs a POSIX shell there.
 *
 * @param packagesRoot where `extractHostPackages` put the packages
 * @throws SealpodError `PROVIDER_IMAGE` where a package lacks what it should bring
 */
export async function writeHostTools(target: string, packagesRoot: string): Promise<void> {
  const taken = await libraryClosure(
    packagesRoot,
    programs.map((program) => `usr/bin/${program}`),
    modules.map((path) => join(packagesRoot, path)),
  );
  const linker = await readFile(await findProgram(packagesRoot, 'lib64/ld-linux-x86-64.so.2'));
  for (const { path, content } of taken) {
    if (path.startsWith('usr/bin/')) await write(join(target, realPrograms, basename(path)), content, 0o755);
    else if (!path.startsWith('lib64/')) await write(join(target, libraries, basename(path)), content, 0o644);
  }
  for (const program of programs) {
    await write(join(target, 'usr/bin', program), linker, 0o755);
    await write(join(target, 'bin', program), launcher(program), 0o755);
  }
  for (const path of [...modules, ...data, firmwarePath]) {
    await write(join(target, path), await readFile(join(packagesRoot, path)), 0o644);
  }
}

/** The mode must not depend on the umask: another user runs these programs. */
async function write(path: string, content: Buffer | string, mode: number): Promise<void> {
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, content);
  await chmod(path, mode);
}
