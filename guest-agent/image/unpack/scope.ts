import { lstatSync, mkdirSync, readlinkSync, type Stats } from 'node:fs';
import { refused, systemPath } from './paths.ts';

const maxSymlinks = 255;

/** Directory permissions where no layer says which. */
export const impliedDirectoryMode = 0o755;

/**
 * Resolves the directory that `names` name inside `root`, following symbolic links as a process with that root would:
 * absolute targets start at `root`, `..` stops at it. So nothing outside `root` is ever named, whatever links a layer
 * holds. Safe only while nobody else changes the tree.
 *
 * @param onMissing called with the path of a component that does not exist; throws, or creates it
 * @returns path below `root` without leading slash, free of links
 * @throws SealpodError IMG_UNPACK where a component is no directory or links go in a circle
 */
export function resolveDirectory(
  root: string,
  names: readonly string[],
  onMissing: (relative: string) => void,
): string {
  const todo = names.toReversed();
  let current: string[] = [];
  let links = 0;
  for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
    if (name === '' || name === '.') continue;
    if (name === '..') {
      current = current.slice(0, -1);
      continue;
    }
    const relative = [...current, name].join('/');
    const stats = statOf(`${root}/${relative}`);
    if (stats === undefined) onMissing(relative);
    else if (stats.isSymbolicLink()) {
      links += 1;
      if (links > maxSymlinks) throw refused(names.join('/'), 'goes through too many links');
      const target = readlinkSync(systemPath(`${root}/${relative}`), 'latin1');
      if (target.startsWith('/')) current = [];
      todo.push(...target.split('/').toReversed());
      continue;
    } else if (!stats.isDirectory()) throw refused(names.join('/'), 'is below something that is no directory');
    current = [...current, name];
  }
  return current.join('/');
}

/** `lstat`, or undefined where there is nothing. */
export function statOf(path: string): Stats | undefined {
  return lstatSync(systemPath(path), { throwIfNoEntry: false });
}

/** Creates a directory that no entry describes. */
export function createImpliedDirectory(path: string): void {
  mkdirSync(systemPath(path), { mode: impliedDirectoryMode });
}
