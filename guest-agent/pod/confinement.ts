import { lstat, realpath } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { invalidArgument } from './failures.ts';

const containerIdPattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;

/** A container or exec id as it may become part of a path. Throws INVALID_ARGUMENT. */
export function checkedId(id: string): string {
  if (!containerIdPattern.test(id)) throw invalidArgument(`invalid container id ${JSON.stringify(id)}`);
  return id;
}

/**
 * `path` as its segments below `root`: absolute, in normal form (no `.`, `..`, empty segment or NUL), strictly inside.
 * Throws INVALID_ARGUMENT. Says nothing of symbolic links on the way.
 */
export function segmentsBelow(root: string, path: string): string[] {
  const prefix = `${root}/`;
  const segments = path.startsWith(prefix) ? path.slice(prefix.length).split('/') : [];
  const clean = segments.length > 0 && segments.every((s) => s !== '' && s !== '.' && s !== '..' && !s.includes('\0'));
  if (!clean) throw invalidArgument(`path ${JSON.stringify(path)} is not below ${root}`);
  return segments;
}

/** Throws INVALID_ARGUMENT where one of the folders from `root` to the last of `segments` is there but no folder. */
export async function refuseLinkedFolders(root: string, segments: readonly string[]): Promise<void> {
  let folder = root;
  for (const segment of ['', ...segments]) {
    folder = join(folder, segment);
    const found = await lstat(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (found === undefined) return;
    if (!found.isDirectory()) throw invalidArgument(`${folder} is not a folder`);
  }
}

/** The real path of an existing `path`, which must be `root` or below it also with all links followed. */
export async function realPathBelow(root: string, path: string): Promise<string> {
  const [realRoot, real] = await Promise.all([realpath(root), realpath(path)]);
  const way = relative(realRoot, real);
  if (way === '..' || way.startsWith(`..${sep}`)) throw invalidArgument(`${path} leads outside of ${root}`);
  return real;
}
