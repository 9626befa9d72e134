import { readFile, realpath, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { elfNeeds } from './elf.ts';

/** A file to put into the image. `path` has no leading slash; `source` is its path in the unpacked packages. */
export interface TakenFile {
  readonly path: string;
  readonly source: string;
  readonly content: Buffer;
}

const libraryDirectories = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'];

/**
 * Programs with every library they need, from the unpacked packages and never from this machine. A program of another
 * origin (the Node binary) is named by an absolute path and keeps its base name below usr/bin. `loaded` are objects that
 * are put into the image otherwise (addons of Node); only what they need is taken.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where a library is in none of the packages.
 */
export async function libraryClosure(
  packagesRoot: string,
  programs: readonly string[],
  loaded: readonly string[] = [],
): Promise<TakenFile[]> {
  const taken = new Map<string, TakenFile>();
  const pending: { path: string; file: string }[] = [];
  for (const file of loaded) {
    for (const library of elfNeeds(await readFile(file), file).libraries) {
      if (library.startsWith('ld-linux')) continue;
      pending.push({ path: `usr/lib/x86_64-linux-gnu/${library}`, file: await firstPresent(packagesRoot, library) });
    }
  }
  for (const program of programs) {
    const file = program.startsWith('/') ? program : await findProgram(packagesRoot, program);
    pending.push({ path: program.startsWith('/') ? join('usr/bin', program.split('/').at(-1) ?? '') : program, file });
  }
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { path, file } = next;
    if (taken.has(path)) continue;
    const content = await readFile(file);
    taken.set(path, { path, source: relative(packagesRoot, file), content });
    const needs = elfNeeds(content, path);
    if (needs.interpreter !== undefined) {
      const linker = needs.interpreter.slice(1);
      pending.push({ path: linker, file: await findProgram(packagesRoot, linker) });
    }
    for (const library of needs.libraries) {
      // The dynamic linker is found by its own path.
      if (library.startsWith('ld-linux')) continue;
      const found = await firstPresent(packagesRoot, library);
      pending.push({ path: `usr/lib/x86_64-linux-gnu/${library}`, file: found });
    }
  }
  return [...taken.values()].sort((left, right) => (left.path < right.path ? -1 : 1));
}

async function firstPresent(packagesRoot: string, library: string): Promise<string> {
  for (const directory of libraryDirectories) {
    const file = join(packagesRoot, directory, library);
    if ((await stat(file).catch(() => undefined)) !== undefined) return realpath(file);
  }
  throw new SealpodError('PROVIDER_IMAGE', `no package brings the library ${library}`);
}

/**
 * The file of a program in the unpacked packages. Since Debian 13 packages hold /usr paths only; before, some files lay in /bin, /sbin and /lib.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where it is in none of the packages.
 */
export async function findProgram(packagesRoot: string, path: string): Promise<string> {
  const bare = path.replace(/^usr\//, '');
  const others = bare.startsWith('sbin/') ? [bare.replace('sbin/', 'bin/')] : [bare.replace('bin/', 'sbin/')];
  const linker = bare.startsWith('lib64/') ? [bare.replace('lib64/', 'lib/x86_64-linux-gnu/')] : [];
  for (const candidate of [bare, ...others, ...linker].flatMap((name) => [name, `usr/${name}`])) {
    const file = join(packagesRoot, candidate);
    const resolved = await realpath(file).catch(() => undefined);
    if (resolved?.startsWith(await realpath(packagesRoot))) return resolved;
  }
  throw new SealpodError('PROVIDER_IMAGE', `no package brings ${path}`);
}
