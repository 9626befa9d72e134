import { spawnSync } from 'node:child_process';

/** Paths of all files under version control or new and not ignored, relative to `root`. */
export function repositoryFiles(root: string): string[] {
  const result = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (result.status !== 0) throw new Error(`git ls-files failed: ${result.stderr}`);
  return [...new Set(result.stdout.split('\0').filter((path) => path !== ''))];
}
