import { constants, lstatSync, readdirSync, readlinkSync, type Stats } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import { type CopyFileRequest, CopyFileRequestSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import type { Copy } from './plan.ts';

/** One CopyFile message carries at most this much: ttrpc's limit is 4 MiB, and the Go shim uses 1 MiB too. */
export const chunkBytes = 1024 * 1024;
/** Mode of parent directories that the guest creates. */
const parentMode = 0o750;
/** Folders within folders: each holds a descriptor while what is below it is copied. */
const maxDepth = 64;

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

async function* fileRequests(source: string, target: string): AsyncGenerator<CopyFileRequest> {
  await using file = await open(source, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const found = await file.stat();
  if (!found.isFile()) throw changed(source);
  if (found.size === 0) {
    yield request(target, found, {});
    return;
  }
  // The guest finishes a file when its size is reached, so exactly the size announced is sent.
  for (let offset = 0; offset < found.size; ) {
    const { bytesRead, buffer } = await file.read(
      Buffer.alloc(Math.min(chunkBytes, found.size - offset)),
      0,
      null,
      offset,
    );
    if (bytesRead === 0) {
      throw new SealpodError('INTERNAL', `${source} shrank while it was copied into the guest`, {
        expected: `${found.size} bytes`,
        actual: `${offset} bytes`,
      });
    }
    yield request(target, found, { size: found.size, offset, data: buffer.subarray(0, bytesRead) });
    offset += bytesRead;
  }
}

function changed(source: string): SealpodError {
  return new SealpodError('INTERNAL', `${source} became something else while it was copied into the guest`);
}

/** What has been copied of one volume, against its limits. */
interface Tally {
  readonly volume: string;
  readonly limits: CopyLimits;
  bytes: number;
  entries: number;
}

function count(tally: Tally, found: Stats, depth: number): void {
  const { limits, volume } = tally;
  tally.entries += 1;
  if (found.isFile()) tally.bytes += found.size;
  if (tally.bytes <= limits.copyLimitBytes && tally.entries <= limits.copyLimitEntries && depth <= maxDepth) return;
  throw new SealpodError('REQUEST_TOO_LARGE', `volume ${volume} is too large to be copied into the guest`, {
    expected: `at most ${limits.copyLimitBytes} bytes in ${limits.copyLimitEntries} entries, ${maxDepth} folders deep`,
    actual: `${tally.bytes} bytes in ${tally.entries} entries or more`,
    fix: 'use a smaller volume, or raise copyLimitBytes and copyLimitEntries of the shim configuration',
  });
}

/**
 * One entry and what is below it. Nothing is followed: a folder is read through its own descriptor, so that who writes to
 * the volume meanwhile (a container of the host has it too) cannot put a link in its place and lead the shim, which is
 * root, to other files of the host.
 */
async function* entryRequests(
  source: string,
  target: string,
  tally: Tally,
  depth = 0,
): AsyncGenerator<CopyFileRequest> {
  const found = lstatSync(source);
  count(tally, found, depth);
  if (found.isFile()) {
    yield* fileRequests(source, target);
  } else if (found.isDirectory()) {
    await using folder = await open(source, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    const held = `/proc/self/fd/${folder.fd}`;
    yield request(target, await folder.stat(), {});
    for (const name of readdirSync(held).sort()) {
      yield* entryRequests(join(held, name), `${target}/${name}`, tally, depth + 1);
    }
  } else if (found.isSymbolicLink()) {
    const data = Buffer.from(readlinkSync(source));
    yield request(target, found, { size: data.length, data });
  }
}

/**
 * The CopyFile requests that bring a file or a directory tree into the guest: directories before what is in them, entries
 * in the order of their names, symbolic links as links (kubelet's `..data` layout depends on it). Sockets and devices
 * are left out.
 *
 * @throws SealpodError REQUEST_TOO_LARGE beyond the limits, before the file that would exceed them is read.
 */
export function copyRequests(copy: Copy, limits: CopyLimits): AsyncGenerator<CopyFileRequest> {
  return entryRequests(copy.source, copy.target, { volume: copy.source, limits, bytes: 0, entries: 0 });
}
