import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunCommand } from './command.ts';
import type { PodPaths } from './paths.ts';

/** Sets the name resolution of the pod: the machine's own, and the file that containers get. */
export async function setResolver(lines: readonly string[], paths: PodPaths, run: RunCommand): Promise<void> {
  const file = join(paths.root, 'sandbox/resolv.conf');
  const text = `${lines.join('\n')}\n`;
  await writeFile(file, text, { mode: 0o644 });
  // The image has a link there to a place that can be written; where it has none, its file is covered.
  await writeFile(paths.resolvConf, text, { mode: 0o644 }).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EROFS') throw error;
    await run('mount', ['--bind', file, paths.resolvConf]);
  });
}
