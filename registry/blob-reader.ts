import { SealpodError } from '@sealpod/protocol/errors';
import { hashFor, requireDigest } from './digest.ts';
import { type HttpResponse, unreachable } from './transport.ts';

export interface BlobReadOptions {
  /** Content to read; `size` is the exact number of bytes that will come. */
  readonly blob: { readonly digest: string; readonly size: number };
  /** Opens the blob from `offset` on; answers 200, or 206 where `offset` is not zero. */
  readonly open: (offset: number) => Promise<HttpResponse>;
  /** How often in a row a connection may break without a byte having come. */
  readonly maxFruitlessAttempts: number;
  /** How often a connection may break in all. */
  readonly maxAttempts: number;
  /** Waits before attempt number `attempt`, counted from 1; rejects when the caller has given up. */
  readonly wait: (attempt: number) => Promise<void>;
}

/**
 * Reads a blob piece by piece; a broken connection is resumed where it broke. The digest is checked when the last byte
 * has been handed out: only a generator that ends well has given the right bytes.
 *
 * @throws SealpodError IMG_DIGEST, IMG_REGISTRY, IMG_AUTH
 */
export async function* readBlob(options: BlobReadOptions): AsyncGenerator<Buffer, void, undefined> {
  const { blob } = options;
  const hash = hashFor(blob.digest);
  let received = 0;
  let fruitless = 0;
  for (let attempt = 1; received < blob.size; attempt++) {
    const before = received;
    try {
      const response = await options.open(received);
      try {
        for await (const chunk of fromOffset(response, received)) {
          received += chunk.length;
          if (received > blob.size) throw tooLong(blob);
          hash.update(chunk);
          yield chunk;
        }
      } finally {
        response.body.destroy();
      }
      if (received < blob.size)
        throw unreachable(response.url, new Error(`ends after ${received} of ${blob.size} bytes`));
    } catch (error) {
      fruitless = received > before ? 0 : fruitless + 1;
      if (!isBroken(error) || fruitless >= options.maxFruitlessAttempts || attempt >= options.maxAttempts) throw error;
      await options.wait(fruitless + 1);
    }
  }
  requireDigest(hash, blob.digest, 'blob');
}

/** The bytes from `offset` on, whether the server honours the range or sends all of it again. */
async function* fromOffset(response: HttpResponse, offset: number): AsyncGenerator<Buffer, void, undefined> {
  let skip = offset;
  if (response.status === 206) {
    const start = /^bytes (\d+)-/.exec(response.headers['content-range'] ?? '')?.[1];
    if (start !== `${offset}`) {
      throw new SealpodError('IMG_REGISTRY', `${response.url.host} answers with another range than asked for`);
    }
    skip = 0;
  }
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      if (skip >= chunk.length) skip -= chunk.length;
      else {
        yield skip === 0 ? chunk : chunk.subarray(skip);
        skip = 0;
      }
    }
  } catch (cause) {
    throw unreachable(response.url, cause);
  }
}

function isBroken(error: unknown): boolean {
  return error instanceof SealpodError && error.code === 'IMG_REGISTRY';
}

function tooLong(blob: { readonly digest: string; readonly size: number }): SealpodError {
  return new SealpodError('IMG_DIGEST', 'blob is longer than its descriptor says', {
    expected: `${blob.size} bytes`,
    source: blob.digest,
  });
}
