import type { IncomingMessage } from 'node:http';
import { SealpodError } from '@sealpod/protocol/errors';

/**
 * Reads a request body. Throws `REQUEST_TOO_LARGE` beyond `limit` bytes, without reading on, and `REQUEST_FORMAT` for an
 * encoded one (a decompressed body has no limit that a client could know) or one that breaks off.
 */
export function readBody(request: IncomingMessage, limit: number): Promise<Buffer> {
  const tooLarge = () =>
    new SealpodError('REQUEST_TOO_LARGE', 'payload reached size limit', { expected: `at most ${limit} bytes` });
  const encoding = request.headers['content-encoding'] ?? 'identity';
  if (encoding !== 'identity') {
    return Promise.reject(
      new SealpodError('REQUEST_FORMAT', 'content encodings are not accepted', { actual: encoding }),
    );
  }
  const declared = Number(request.headers['content-length'] ?? 0);
  if (declared > limit) return Promise.reject(tooLarge());
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const take = (chunk: Buffer): void => {
      length += chunk.length;
      if (length <= limit) {
        chunks.push(chunk);
        return;
      }
      request.off('data', take);
      request.pause();
      reject(tooLarge());
    };
    request.on('data', take);
    request.once('end', () =>
      resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks, length)),
    );
    request.once('error', (cause) =>
      reject(new SealpodError('REQUEST_FORMAT', 'the request body broke off', { cause })),
    );
    request.once('close', () => reject(new SealpodError('REQUEST_FORMAT', 'the request body broke off')));
  });
}
