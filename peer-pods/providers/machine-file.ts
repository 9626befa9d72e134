import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/**
 * The last `limit` bytes of a file in a machine's folder. The folder is its hypervisor's, so once a guest has broken out of
 * that, anything may stand in the file's place: a link is not followed, a pipe is not waited for.
 *
 * @throws Error where it cannot be opened or is no regular file
 */
export async function readEnd(path: string, limit: number): Promise<Buffer> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const status = await file.stat();
  if (!status.isFile()) throw new Error(`${path} is not a file`);
  const buffer = Buffer.alloc(Math.min(status.size, limit));
  const { bytesRead } = await file.read(buffer, 0, buffer.length, Math.max(0, status.size - limit));
  return buffer.subarray(0, bytesRead);
}
