import { constants } from 'node:fs';
import { chmod, lchown, mkdir, open, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { refuseLinkedFolders, segmentsBelow } from './confinement.ts';
import { invalidArgument } from './failures.ts';
import { beginsSealed, type FileCopy, sealedPrefix } from './unsealing.ts';

const fileTypeMask = 0o170000;
const directoryType = 0o040000;
const symlinkType = 0o120000;
const regularType = 0o100000;
const permissionMask = 0o7777;
const defaultDirectoryMode = 0o750;
const maxFileBytes = 256n * 1024n * 1024n;
const maxLinkTarget = 4096;

/**
 * Puts one file, folder or symbolic link (or one chunk of a file) below `root`, never through a link, and shows a file only
 * when it is complete. Throws INVALID_ARGUMENT for a path outside, a type that is none of the three, impossible sizes, or
 * a sealed secret that `unsealFile` did not see: a program would take its text, which the host knows, for the secret.
 */
export async function copyFile(root: string, copy: FileCopy): Promise<void> {
  const segments = segmentsBelow(root, copy.path);
  const parents = segments.slice(0, -1);
  await refuseLinkedFolders(root, parents);
  await makeParents(root, parents, copy);
  switch (copy.fileMode & fileTypeMask) {
    case directoryType:
      await putDirectory(root, segments, copy);
      return;
    case symlinkType:
      await putSymlink(copy);
      return;
    default:
      if (!isRegularFile(copy))
        throw invalidArgument(`${copy.path}: only files, folders and symbolic links can be copied`);
      await putChunk(copy);
  }
}

/** Some shims leave the type out where it is a file. */
export function isRegularFile({ fileMode }: FileCopy): boolean {
  return [regularType, 0].includes(fileMode & fileTypeMask);
}

async function makeParents(root: string, parents: readonly string[], copy: FileCopy): Promise<void> {
  const parent = join(root, ...parents);
  const mode = copy.dirMode === 0 ? defaultDirectoryMode : copy.dirMode & permissionMask;
  const made = await mkdir(parent, { recursive: true, mode });
  if (made !== undefined && parents.length > 0) await lchown(parent, copy.uid, copy.gid);
}

async function putDirectory(root: string, segments: readonly string[], copy: FileCopy): Promise<void> {
  await mkdir(copy.path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  await refuseLinkedFolders(root, segments);
  await chmod(copy.path, copy.fileMode & permissionMask);
  await lchown(copy.path, copy.uid, copy.gid);
}

/** A link is put beside and renamed, so that readers of `..data` see the old or the new one. */
async function putSymlink(copy: FileCopy): Promise<void> {
  const target = Buffer.from(copy.data).toString('utf8');
  if (target === '' || target.length > maxLinkTarget || target.includes('\0')) {
    throw invalidArgument(`${copy.path}: not a link target`);
  }
  const temporary = temporaryPath(copy.path);
  await rm(temporary, { force: true });
  await symlink(target, temporary);
  await lchown(temporary, copy.uid, copy.gid);
  await rename(temporary, copy.path);
}

async function putChunk(copy: FileCopy): Promise<void> {
  const end = copy.offset + BigInt(copy.data.length);
  if (copy.offset < 0n || copy.fileSize < 0n || end > copy.fileSize || copy.fileSize > maxFileBytes) {
    throw invalidArgument(`${copy.path}: ${copy.data.length} bytes at ${copy.offset} of ${copy.fileSize}`);
  }
  const temporary = temporaryPath(copy.path);
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  const file = await open(temporary, copy.offset === 0n ? flags | constants.O_TRUNC : flags, 0o600);
  try {
    let written = 0;
    while (written < copy.data.length) {
      const { bytesWritten } = await file.write(
        copy.data,
        written,
        copy.data.length - written,
        Number(copy.offset) + written,
      );
      written += bytesWritten;
    }
    const { size } = await file.stat({ bigint: true });
    if (size !== copy.fileSize) return;
    const { buffer } = await file.read(Buffer.alloc(sealedPrefix.length), 0, sealedPrefix.length, 0);
    if (beginsSealed(buffer)) {
      await rm(temporary);
      throw invalidArgument(`${copy.path}: a sealed secret has to come in one piece, and may not hold another`);
    }
    await file.chown(copy.uid, copy.gid);
    // After chown, which clears the set-id bits.
    await file.chmod(copy.fileMode & permissionMask);
  } finally {
    await file.close();
  }
  await rename(temporary, copy.path);
}

function temporaryPath(path: string): string {
  return join(dirname(path), `.${path.slice(path.lastIndexOf('/') + 1)}.tmp`);
}
