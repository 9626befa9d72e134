import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/**
 * The last `limit` bytes of a file in a machine's folder. The folder is its hypervisor's, so once a guest has broken out of
 * that, anything may stand in the file's place: a link is not followed, a pipe is not waited for.
 *
 * @throws Error where it cannot be opened or is no regular file
 */
export async function readEnd(path: string, limit: number): Promise<Buffer> {
  return readPart(path, (size) => Math.max(0, size - limit), limit);
}

/** As `readEnd`: at most `limit` bytes from `offset` on; none where the file is not longer than that. */
export async function readFrom(path: string, offset: number, limit: number): Promise<Buffer> {
  return readPart(path, () => offset, limit);
}

async function readPart(path: string, offsetIn: (size: number) => number, limit: number): Promise<Buffer> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const status = await file.stat();
  if (!status.isFile()) throw new Error(`${path} is not a file`);
  const offset = offsetIn(status.size);
  const buffer = Buffer.alloc(Math.max(0, Math.min(status.size - offset, limit)));
  if (buffer.length === 0) return buffer;
  const { bytesRead } = await file.read(buffer, 0, buffer.length, offset);
  return buffer.subarray(0, bytesRead);
}
