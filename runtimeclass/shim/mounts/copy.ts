import { createReadStream, lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import { type CopyFileRequest, CopyFileRequestSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import type { Copy } from './plan.ts';

/** One CopyFile message carries at most this much: ttrpc's limit is 4 MiB, and the Go shim uses 1 MiB too. */
export const chunkBytes = 1024 * 1024;
/** Mode of parent directories that the guest creates. */
const parentMode = 0o750;

export interface CopyLimits {
  readonly copyLimitBytes: number;
  readonly copyLimitEntries: number;
}

function request(target: string, found: Stats, fields: { size?: number; offset?: number; data?: Uint8Array }) {
  return create(CopyFileRequestSchema, {
    path: target,
    fileSize: BigInt(fields.size ?? 0),
    fileMode: found.mode,
    dirMode: parentMode,
    uid: found.uid,
    gid: found.gid,
    offset: BigInt(fields.offset ?? 0),
    data: fields.data ?? new Uint8Array(),
  });
}

async function* fileRequests(source: string, target: string, found: Stats): AsyncGenerator<CopyFileRequest> {
  if (found.size === 0) {
    yield request(target, found, {});
    return;
  }
  let offset = 0;
  // The guest finishes a file when its size is reached, so exactly the size announced is sent.
  for await (const data of createReadStream(source, { highWaterMark: chunkBytes, end: found.size - 1 })) {
    yield request(target, found, { size: found.size, offset, data });
    offset += data.length;
  }
  if (offset === found.size) return;
  throw new SealpodError('INTERNAL', `${source} shrank while it was copied into the guest`, {
    expected: `${found.size} bytes`,
    actual: `${offset} bytes`,
  });
}

/**
 * The CopyFile requests that bring a file or a directory tree into the guest: directories before what is in them, entries
 * in the order of their names, symbolic links as links (kubelet's `..data` layout depends on it). Sockets and devices
 * are left out.
 *
 * @throws SealpodError REQUEST_TOO_LARGE beyond the limits, before the file that would exceed them is read.
 */
export async function* copyRequests(copy: Copy, limits: CopyLimits): AsyncGenerator<CopyFileRequest> {
  let bytes = 0;
  let entries = 0;
  const pending: Copy[] = [copy];
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    const { source, target } = next;
    const found = lstatSync(source);
    entries += 1;
    if (found.isFile()) bytes += found.size;
    if (bytes > limits.copyLimitBytes || entries > limits.copyLimitEntries) {
      throw new SealpodError('REQUEST_TOO_LARGE', `volume ${copy.source} is too large to be copied into the guest`, {
        expected: `at most ${limits.copyLimitBytes} bytes in ${limits.copyLimitEntries} entries`,
        actual: `${bytes} bytes in ${entries} entries or more`,
        fix: 'use a smaller volume, or raise copyLimitBytes and copyLimitEntries of the shim configuration',
      });
    }
    if (found.isFile()) {
      yield* fileRequests(source, target, found);
    } else if (found.isDirectory()) {
      yield request(target, found, {});
      const names = readdirSync(source).sort();
      pending.unshift(...names.map((name) => ({ source: join(source, name), target: `${target}/${name}` })));
    } else if (found.isSymbolicLink()) {
      const data = Buffer.from(readlinkSync(source));
      yield request(target, found, { size: data.length, data });
    }
  }
}
