import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** One line for each path below `root`: type, mode, owner, time, link count, link target, digest of the content. */
export function describeTree(root: string): Record<string, string> {
  const lines: Record<string, string> = {};
  const visit = (relative: string): void => {
    const path = Buffer.from(relative === '' ? root : `${root}/${relative}`, 'latin1');
    const stats = lstatSync(path);
    const type = stats.isDirectory() ? 'd' : stats.isSymbolicLink() ? 'l' : stats.isFile() ? 'f' : 'other';
    const content =
      type === 'f'
        ? createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16)
        : type === 'l'
          ? readlinkSync(path, 'latin1')
          : '';
    const links = type === 'd' ? '' : stats.nlink;
    const mode = (stats.mode & 0o7777).toString(8);
    lines[relative] = [type, mode, `${stats.uid}:${stats.gid}`, Math.floor(stats.mtimeMs / 1000), links, content].join(
      ' ',
    );
    if (type !== 'd') return;
    for (const name of readdirSync(path, 'latin1').sort()) visit(relative === '' ? name : `${relative}/${name}`);
  };
  visit('');
  return lines;
}
