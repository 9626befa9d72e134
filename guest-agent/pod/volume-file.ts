import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { invalidArgument } from './failures.ts';

/**
 * The first `limit` bytes of a file that a container can write, as text. The container may have put something else in its
 * place: a link is not followed, a pipe is not waited for, and no more than `limit` bytes are ever in memory.
 * Throws INVALID_ARGUMENT where it is no regular file.
 */
export async function readStart(path: string, limit: number): Promise<string> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if (!(await file.stat()).isFile()) throw invalidArgument(`${path} is not a file`);
  const bytes = Buffer.alloc(limit);
  let length = 0;
  for (;;) {
    const { bytesRead } = await file.read(bytes, length, limit - length, length);
    length += bytesRead;
    if (bytesRead === 0 || length === limit) return bytes.toString('utf8', 0, length);
  }
}
