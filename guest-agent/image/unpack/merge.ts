import {
  chmodSync,
  lchownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  type Stats,
  unlinkSync,
  utimesSync,
} from 'node:fs';
import type { LayerChanges } from './layer-unpacker.ts';
import { printable, refused, systemPath, toBinary } from './paths.ts';
import { createImpliedDirectory, resolveDirectory, statOf } from './scope.ts';

/**
 * Puts a verified layer on top of a root file system: first its deletions, then its tree. Directories that exist only
 * in the layer, and all files, move by rename, so the cost is the number of directories both have. The result is what
 * unpacking the layers one after the other into one directory gives (OCI image-spec, layer.md).
 *
 * @param rootfs directory with the merged layers below, on the same file system
 * @param layer directory that {@link LayerUnpacker} filled; empty afterwards and removed
 * @throws SealpodError IMG_UNPACK
 */
export function mergeLayer(rootfs: string, layer: string, changes: LayerChanges): void {
  const target = toBinary(rootfs);
  const source = toBinary(layer);
  for (const directory of changes.opaqueDirectories) emptyDirectory(target, directory);
  for (const path of changes.whiteouts) removeHidden(target, path);
  new Merge(target, source, changes).run();
  for (const [path, linkTarget] of changes.linksBelow) linkBelow(target, path, linkTarget);
}

class Merge {
  readonly #target: string;
  readonly #source: string;
  readonly #changes: LayerChanges;

  constructor(target: string, source: string, changes: LayerChanges) {
    this.#target = target;
    this.#source = source;
    this.#changes = changes;
  }

  run(): void {
    this.#mergeDirectory('', '', this.#changes.describesRoot);
    rmdirSync(systemPath(this.#source));
  }

  /** Moves the content of a directory of the layer into one of the target; both exist. */
  #mergeDirectory(from: string, to: string, described: boolean): void {
    const source = join(this.#source, from);
    const target = join(this.#target, to);
    const before = statOf(target);
    const own = statOf(source);
    for (const name of readdirSync(systemPath(source), 'latin1')) {
      this.#mergeEntry(from === '' ? name : `${from}/${name}`, to === '' ? name : `${to}/${name}`);
    }
    if (described && own !== undefined) describe(target, own);
    else if (before !== undefined) utimesSync(systemPath(target), before.atime, before.mtime);
  }

  #mergeEntry(from: string, to: string): void {
    const source = join(this.#source, from);
    const target = join(this.#target, to);
    const existing = statOf(target);
    if (statOf(source)?.isDirectory() === true && existing !== undefined) {
      const implied = this.#changes.impliedDirectories.has(from);
      if (existing.isDirectory() || (implied && existing.isSymbolicLink())) {
        // What is only implied does not replace a link to a directory; it lies behind it.
        const resolved = existing.isDirectory() ? to : resolveCreating(this.#target, to.split('/'));
        this.#mergeDirectory(from, resolved, !implied);
        rmdirSync(systemPath(source));
        return;
      }
      unlinkSync(systemPath(target));
    } else if (existing?.isDirectory() === true) rmSync(systemPath(target), { recursive: true });
    renameSync(systemPath(source), systemPath(target));
  }
}

/** Gives a directory the owner, mode and time that the layer's directory has. */
function describe(path: string, stats: Stats): void {
  const name = systemPath(path);
  lchownSync(name, stats.uid, stats.gid);
  chmodSync(name, stats.mode & 0o7777);
  utimesSync(name, stats.atime, stats.mtime);
}

function resolveCreating(root: string, names: readonly string[]): string {
  return resolveDirectory(root, names, (relative) => createImpliedDirectory(`${root}/${relative}`));
}

/** The directory if it exists, following links inside the root. */
function resolveExisting(root: string, names: readonly string[]): string | undefined {
  class Missing extends Error {}
  try {
    return resolveDirectory(root, names, () => {
      throw new Missing();
    });
  } catch (error) {
    if (error instanceof Missing) return undefined;
    throw error;
  }
}

function emptyDirectory(root: string, path: string): void {
  const directory = resolveExisting(root, path.split('/'));
  if (directory === undefined) return;
  const absolute = join(root, directory);
  keepingTime(absolute, () => {
    for (const name of readdirSync(systemPath(absolute), 'latin1')) {
      rmSync(systemPath(join(absolute, name)), { recursive: true });
    }
  });
}

function removeHidden(root: string, path: string): void {
  const names = path.split('/');
  const name = names.pop() ?? '';
  const parent = resolveExisting(root, names);
  if (parent === undefined || statOf(join(join(root, parent), name)) === undefined) return;
  const absolute = join(root, parent);
  keepingTime(absolute, () => rmSync(systemPath(join(absolute, name)), { recursive: true }));
}

/** A hard link to a file of a layer below. */
function linkBelow(root: string, path: string, linkTarget: string): void {
  const target = existingFile(root, linkTarget);
  if (target === undefined) throw refused(path, `links to ${printable(linkTarget)}, which does not exist`);
  const names = path.split('/');
  const name = names.pop() ?? '';
  const parent = join(root, resolveCreating(root, names));
  const link = join(parent, name);
  keepingTime(parent, () => {
    if (link === target) return;
    if (statOf(link) !== undefined) rmSync(systemPath(link), { recursive: true });
    linkSync(systemPath(target), systemPath(link));
  });
}

function existingFile(root: string, path: string): string | undefined {
  const names = path.split('/');
  const name = names.pop() ?? '';
  const parent = resolveExisting(root, names);
  if (parent === undefined) return undefined;
  const absolute = join(join(root, parent), name);
  const stats = statOf(absolute);
  return stats === undefined || stats.isDirectory() ? undefined : absolute;
}

function keepingTime(directory: string, change: () => void): void {
  const stats = statOf(directory);
  change();
  if (stats !== undefined) utimesSync(systemPath(directory), stats.atime, stats.mtime);
}

function join(directory: string, relative: string): string {
  return relative === '' ? directory : `${directory}/${relative}`;
}

/** Creates the empty root file system that layers are merged into. */
export function createRootfs(path: string): void {
  mkdirSync(path, { mode: 0o755 });
  // mkdir's mode is subject to the umask.
  chmodSync(path, 0o755);
}
