import { readFile } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/**
 * Bytes of a file of a store; undefined where there is none.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where it cannot be read or has more than `maxBytes`
 */
export async function readOptionalFile(path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    const bytes = await readFile(path);
    if (bytes.length > maxBytes) throw new RangeError(`larger than ${maxBytes} bytes`);
    return bytes;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && (cause.code === 'ENOENT' || cause.code === 'ENOTDIR'))
      return undefined;
    throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', `${path} cannot be read`, { cause });
  }
}
