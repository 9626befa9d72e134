import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { RunCommand } from '../command.ts';
import { checkVolumeHeader, isEmpty, isEncryptedVolume, volumeCipher, volumeKeyBytes } from './header.ts';

/** A LUKS2 header with its slots is never larger by default; ours ends at `ownHeaderBytes`. */
const maxHeaderBytes = 16 << 20;
const ownHeaderBytes = 1 << 20;
const metadataKiB = 16;
const sectorBytes = 512;
/** A disk may be slow, and so may be a processor without instructions for the cipher. */
export const volumeCommandMs = 300_000;
/** Random keys need no costly derivation; a pass phrase of a person would. */
const minKeyBytes = 32;
const derivation = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'];

export interface EncryptedVolume {
  /** Name of the mapping, and part of file names. */
  readonly name: string;
  /** Device node of the disk. */
  readonly disk: string;
  readonly key: Uint8Array;
  readonly readOnly: boolean;
  /** Folder in the guest's memory. */
  readonly work: string;
}

/** An opened volume. */
export interface OpenedVolume {
  /** Device node of the plaintext. */
  readonly device: string;
  readonly isNew: boolean;
}

/**
 * Opens an encrypted volume (LUKS2); one that was never written to is made first, and `prepare` gets its plaintext before the
 * header is written to the disk: where there is a header, the volume is complete.
 *
 * The header is copied into the guest's memory, checked there, and used from there: what the host changes on the disk
 * meanwhile has no effect. The key goes to cryptsetup's standard input, never into arguments or files.
 *
 * @throws SealpodError VOLUME_KEY where the key does not fit, VOLUME_FORMAT where the disk holds something else
 */
export async function openEncryptedVolume(
  volume: EncryptedVolume,
  run: RunCommand,
  prepare: (device: string) => Promise<void>,
): Promise<OpenedVolume> {
  const { name, disk, key, readOnly, work } = volume;
  if (key.length < minKeyBytes) {
    throw new SealpodError('VOLUME_KEY', 'the key of the volume is too short', {
      expected: `at least ${minKeyBytes} random bytes`,
      actual: `${key.length} bytes`,
    });
  }
  await mkdir(work, { recursive: true, mode: 0o700 });
  const header = join(work, `${name}.header`);
  const device = `/dev/mapper/${name}`;
  try {
    const start = await readStart(disk, ownHeaderBytes);
    const isNew = isEmpty(start);
    if (isNew && readOnly) {
      throw new SealpodError('VOLUME_FORMAT', 'the volume is empty and cannot be written', {
        fix: 'mount it writable once',
      });
    }
    if (isNew) await makeHeader(volume, header, run);
    else await copyHeader(disk, start, header, run);
    await openWith(header, volume, run);
    if (!isNew) return { device, isNew };
    try {
      await prepare(device);
      await writeHeader(header, disk);
    } catch (error) {
      await closeEncryptedVolume(name, run);
      throw error;
    }
    return { device, isNew };
  } finally {
    await rm(header, { force: true });
  }
}

/** Takes a mapping away; the kernel forgets its key. */
export async function closeEncryptedVolume(name: string, run: RunCommand): Promise<void> {
  await run('cryptsetup', ['close', name]);
}

async function makeHeader({ disk, key }: EncryptedVolume, header: string, run: RunCommand): Promise<void> {
  const offset = String(ownHeaderBytes / sectorBytes);
  const slots = `${ownHeaderBytes / 1024 - 2 * metadataKiB}k`;
  const layout = ['--header', header, '--offset', offset];
  const sizes = ['--luks2-metadata-size', `${metadataKiB}k`, '--luks2-keyslots-size', slots];
  const cipher = ['--cipher', volumeCipher, '--key-size', String(volumeKeyBytes * 8), '--hash', 'sha256'];
  await run(
    'cryptsetup',
    [
      'luksFormat',
      '--batch-mode',
      '--type',
      'luks2',
      ...cipher,
      ...derivation,
      ...layout,
      ...sizes,
      '--key-file',
      '-',
      disk,
    ],
    { input: key, timeoutMs: volumeCommandMs },
  );
}

async function copyHeader(disk: string, start: Buffer, header: string, run: RunCommand): Promise<void> {
  if (!isEncryptedVolume(start)) {
    throw new SealpodError('VOLUME_FORMAT', 'the volume holds something, and it is not encrypted', {
      expected: 'a LUKS2 volume, or nothing at all',
      fix: 'the host gave another volume, or it was used without encryption before: use a new one',
    });
  }
  const rest = await readStart(disk, maxHeaderBytes);
  await writeNew(header, Buffer.concat([start, rest.subarray(start.length)]));
  checkVolumeHeader(await run('cryptsetup', ['luksDump', '--dump-json-metadata', header]));
}

async function openWith(
  header: string,
  { name, disk, key, readOnly }: EncryptedVolume,
  run: RunCommand,
): Promise<void> {
  const mode = readOnly ? ['--readonly'] : [];
  const options = ['--header', header, '--disable-external-tokens', '--key-file', '-', ...mode];
  try {
    await run('cryptsetup', ['open', '--type', 'luks2', ...options, disk, name], {
      input: key,
      timeoutMs: volumeCommandMs,
    });
  } catch (cause) {
    if (!/No key available/i.test(String(cause))) throw cause;
    throw new SealpodError('VOLUME_KEY', 'the key does not open the volume', {
      fix: 'the host gave another volume, or the key resource was changed: give back volume and key that belong together',
      cause,
    });
  }
}

async function writeHeader(header: string, disk: string): Promise<void> {
  const content = await readStart(header, ownHeaderBytes);
  await using file = await open(disk, 'r+');
  await file.write(content, 0, content.length, 0);
  await file.sync();
}

async function writeNew(path: string, content: Uint8Array): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.writeFile(content);
}

/** The first bytes of a file or disk. */
export async function readStart(path: string, limit: number): Promise<Buffer> {
  await using file = await open(path, 'r');
  const buffer = Buffer.alloc(limit);
  let length = 0;
  while (length < limit) {
    const { bytesRead } = await file.read(buffer, length, limit - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.subarray(0, length);
}
