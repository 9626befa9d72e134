import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { SealpodError } from '@sealpod/protocol/errors';

const diskName = 'disk.raw';
const manifestName = 'manifest.json';
/** No pod VM image is larger; a node's disk is not to be filled by a wrong one. */
const mostDiskBytes = 16 * 2 ** 30;
const mostManifestBytes = 16 * 2 ** 20;

/**
 * Places a pod VM image below `to`, in a folder named by the digest of its disk, which appears at once and whole or not at
 * all. Where it is there already its disk is only read again.
 *
 * @throws SealpodError PROVIDER_IMAGE where the disk is missing, too large or not the one of `digest`
 */
export async function placePodVmImage(from: string, to: string, digest: string): Promise<void> {
  const target = imageFolder(to, digest);
  const present = await digestOf(join(target, diskName)).catch(absent);
  if (present === digest) return;
  await mkdir(to, { recursive: true, mode: 0o755 });
  const temporary = join(to, `.${basename(target)}`);
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { mode: 0o755 });
  try {
    await limit(join(from, diskName), mostDiskBytes);
    await limit(join(from, manifestName), mostManifestBytes);
    const actual = await copyDisk(join(from, diskName), join(temporary, diskName));
    if (actual !== digest) {
      throw new SealpodError('PROVIDER_IMAGE', 'the disk is not the one that was asked for', {
        expected: digest,
        actual,
        fix: 'correct digest or source of the PodVmImage',
      });
    }
    await copyFile(join(from, manifestName), join(temporary, manifestName));
    await rm(target, { recursive: true, force: true });
    await rename(temporary, target);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Removes what `placePodVmImage` has placed. Machines that run from it keep running: they have it open. */
export async function removePodVmImage(to: string, digest: string): Promise<void> {
  const target = imageFolder(to, digest);
  for (const folder of [target, join(to, `.${basename(target)}`)]) await rm(folder, { recursive: true, force: true });
  if ((await readdir(to).catch(() => [''])).length === 0) await rm(to, { recursive: true, force: true }).catch(busy);
}

function imageFolder(to: string, digest: string): string {
  if (/^sha256:[0-9a-f]{64}$/.test(digest)) return join(to, digest);
  throw new SealpodError('USAGE', 'that is no digest', { expected: 'sha256:<64 hex digits>', actual: digest });
}

/** A folder that is mounted here cannot be removed; its content is gone. */
function busy(thrown: NodeJS.ErrnoException): void {
  if (thrown.code !== 'EBUSY') throw thrown;
}

function absent(thrown: NodeJS.ErrnoException): undefined {
  if (thrown.code !== 'ENOENT') throw thrown;
}

async function limit(file: string, mostBytes: number): Promise<void> {
  const found = await stat(file).catch((cause: unknown) => {
    throw new SealpodError('PROVIDER_IMAGE', `the OCI image has no ${basename(file)}`, { cause });
  });
  if (found.isFile() && found.size <= mostBytes) return;
  throw new SealpodError('PROVIDER_IMAGE', `${basename(file)} is no file, or too large`, {
    expected: `at most ${mostBytes} bytes`,
    actual: String(found.size),
  });
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return `sha256:${hash.digest('hex')}`;
}

/** Copies and returns the digest of what was read, so that both are about the same bytes. */
async function copyDisk(from: string, to: string): Promise<string> {
  const hash = createHash('sha256');
  const hashing = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      done(undefined, chunk);
    },
  });
  await pipeline(createReadStream(from), hashing, createWriteStream(to, { mode: 0o644, flush: true }));
  return `sha256:${hash.digest('hex')}`;
}
