import { lstat, realpath } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { invalidArgument } from './failures.ts';

const containerIdPattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;

/** A container or exec id as it may become part of a path. Throws INVALID_ARGUMENT. */
export function checkedId(id: string): string {
  if (!containerIdPattern.test(id)) throw invalidArgument(`invalid container id ${JSON.stringify(id)}`);
  return id;
}

/**
 * `path` as its segments below `root`: absolute, in normal form (no `.`, `..`, empty segment or NUL), strictly inside.
 * Throws INVALID_ARGUMENT. Says nothing of symbolic links on the way.
 */
export function segmentsBelow(root: string, path: string): string[] {
  const prefix = `${root}/`;
  const segments = path.startsWith(prefix) ? path.slice(prefix.length).split('/') : [];
  const clean = segments.length > 0 && segments.every((s) => s !== '' && s !== '.' && s !== '..' && !s.includes('\0'));
  if (!clean) throw invalidArgument(`path ${JSON.stringify(path)} is not below ${root}`);
  return segments;
}

/**
 * Folders below the agent's root that belong to the host: copied files, shared memory, volumes. All others hold images,
 * root file systems and configurations with opened secrets, and no request may name them as a volume.
 */
const hostFolders = ['shared', 'sandbox'];

/** As {@link segmentsBelow}, in a folder of the host's. Throws INVALID_ARGUMENT. */
export function segmentsOfVolume(root: string, path: string): string[] {
  const segments = segmentsBelow(root, path);
  if (segments.length < 2 || !hostFolders.includes(segments[0] ?? '')) {
    throw invalidArgument(`path ${JSON.stringify(path)} is not below ${hostFolders.join(' or ')} of ${root}`);
  }
  return segments;
}

/** Throws INVALID_ARGUMENT where one of the folders from `root` to the last of `segments` is there but no folder. */
export async function refuseLinkedFolders(root: string, segments: readonly string[]): Promise<void> {
  let folder = root;
  for (const segment of ['', ...segments]) {
    folder = join(folder, segment);
    const found = await lstat(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (found === undefined) return;
    if (!found.isDirectory()) throw invalidArgument(`${folder} is not a folder`);
  }
}

/**
 * The real path of an existing `path` in a folder of the host's, where it must lie also with all links followed: the host
 * and the containers may have put links there. Throws INVALID_ARGUMENT.
 */
export async function realVolumePath(root: string, path: string): Promise<string> {
  segmentsOfVolume(root, path);
  const [realRoot, real] = await Promise.all([realpath(root), realpath(path)]);
  const [folder = ''] = relative(realRoot, real).split(sep);
  if (!hostFolders.includes(folder)) throw invalidArgument(`${path} leads outside of the volumes of ${root}`);
  return real;
}
