import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import type { TarEntry } from '../tar/header.ts';
import type { TarHandler } from '../tar/reader.ts';
import type { UnpackBudget } from './limits.ts';
import { entryComponents, printable, refused, systemPath, toBinary } from './paths.ts';
import { createImpliedDirectory, resolveDirectory, statOf } from './scope.ts';
import type { SpecialFiles } from './special-files.ts';

/** What a layer says beyond the tree it was unpacked to. Paths are binary strings below the root. */
export interface LayerChanges {
  /** Paths to delete from the layers below. */
  readonly whiteouts: readonly string[];
  /** Directories whose content in the layers below is to be deleted. */
  readonly opaqueDirectories: readonly string[];
  /** Directories that no entry describes: they exist only because something is in them. */
  readonly impliedDirectories: ReadonlySet<string>;
  /** Hard links to files that this layer does not hold, path → target. */
  readonly linksBelow: ReadonlyMap<string, string>;
  /** Whether the layer describes the root directory itself. */
  readonly describesRoot: boolean;
}

const whiteoutPrefix = '.wh.';
const opaqueMarker = '.wh..wh..opq';
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;

/**
 * Writes one layer below an empty directory of its own. Whiteouts are collected and not written: layers are merged into
 * one tree ({@link mergeLayer}), so nothing needs to mark a deletion on disk, and no layer can forge one.
 *
 * Names are resolved inside the root ({@link resolveDirectory}); files are created exclusively and never through a
 * link. Needs the rights of root, for owners.
 */
export class LayerUnpacker implements TarHandler {
  readonly #root: string;
  readonly #budget: UnpackBudget;
  readonly #specialFiles: SpecialFiles;
  readonly #umask = process.umask();
  readonly #whiteouts: string[] = [];
  readonly #opaqueDirectories: string[] = [];
  readonly #implied = new Set<string>();
  readonly #linksBelow = new Map<string, string>();
  /** Modification times of directories, to be set when nothing more is put into them. */
  readonly #directoryTimes = new Map<string, number>();
  /** Parent as written in the archive → resolved. Emptied when something it went through is removed. */
  readonly #resolved = new Map<string, string>();
  #describesRoot = false;
  #file: { readonly descriptor: number; readonly entry: TarEntry } | undefined;

  /** @param root an existing empty directory that nobody else writes to */
  constructor(root: string, budget: UnpackBudget, specialFiles: SpecialFiles) {
    this.#root = toBinary(root);
    this.#budget = budget;
    this.#specialFiles = specialFiles;
  }

  entry(entry: TarEntry): void {
    this.#budget.takeEntry();
    const names = entryComponents(entry.path);
    const name = names.pop();
    if (name === undefined) {
      this.#describeRoot(entry);
      return;
    }
    if (name.startsWith(whiteoutPrefix)) {
      this.#takeWhiteout(names, name);
      return;
    }
    const parent = this.#resolveParent(names);
    const relative = parent === '' ? name : `${parent}/${name}`;
    this.#makeWay(relative, entry.type);
    this.#create(entry, relative);
  }

  data(chunk: Buffer, position: number): void {
    if (this.#file === undefined) return;
    this.#budget.takeBytes(chunk.length);
    for (let at = 0; at < chunk.length; ) {
      at += writeSync(this.#file.descriptor, chunk, at, chunk.length - at, position + at);
    }
  }

  end(): void {
    if (this.#file === undefined) return;
    const { descriptor, entry } = this.#file;
    this.#file = undefined;
    try {
      if (entry.sparse) ftruncateSync(descriptor, entry.size);
      if (entry.uid !== 0 || entry.gid !== 0) fchownSync(descriptor, entry.uid, entry.gid);
      // After chown, which clears set-uid. What open() with this umask already set needs no second call.
      if ((entry.mode & (this.#umask | 0o7000)) !== 0) fchmodSync(descriptor, entry.mode);
      futimesSync(descriptor, entry.modified, entry.modified);
    } finally {
      closeSync(descriptor);
    }
  }

  /** Sets what could be set only at the end, and tells what the layer says beyond its tree. */
  finish(): LayerChanges {
    this.#specialFiles.applyXattrs(this.#root);
    for (const [relative, modified] of this.#directoryTimes) utimesSync(this.#path(relative), modified, modified);
    return {
      whiteouts: this.#whiteouts,
      opaqueDirectories: this.#opaqueDirectories,
      impliedDirectories: this.#implied,
      linksBelow: this.#linksBelow,
      describesRoot: this.#describesRoot,
    };
  }

  /** Closes what is open when the layer is given up. */
  abandon(): void {
    if (this.#file !== undefined) closeSync(this.#file.descriptor);
    this.#file = undefined;
  }

  #describeRoot(entry: TarEntry): void {
    if (entry.type !== 'directory') throw refused(entry.path, 'would replace the root');
    this.#describesRoot = true;
    this.#setDirectory('', entry);
  }

  #takeWhiteout(parent: readonly string[], name: string): void {
    if (name === opaqueMarker) this.#opaqueDirectories.push(parent.join('/'));
    // Other names with the prefix twice are bookkeeping of AUFS and mean nothing.
    if (name.startsWith(whiteoutPrefix + whiteoutPrefix)) return;
    const hidden = name.slice(whiteoutPrefix.length);
    if (hidden === '' || hidden === '.' || hidden === '..') throw refused(name, 'is a whiteout of nothing');
    this.#whiteouts.push([...parent, hidden].join('/'));
  }

  #resolveParent(names: readonly string[]): string {
    if (names.length === 0) return '';
    const written = names.join('/');
    const known = this.#resolved.get(written);
    if (known !== undefined) return known;
    const resolved = resolveDirectory(this.#root, names, (relative) => {
      createImpliedDirectory(`${this.#root}/${relative}`);
      this.#implied.add(relative);
    });
    this.#resolved.set(written, resolved);
    return resolved;
  }

  /** Removes what a later entry of the same name replaces; a directory stays under a directory. */
  #makeWay(relative: string, type: TarEntry['type']): void {
    this.#linksBelow.delete(relative);
    const existing = statOf(`${this.#root}/${relative}`);
    if (existing === undefined || (existing.isDirectory() && type === 'directory')) return;
    if (existing.isDirectory()) {
      rmSync(this.#path(relative), { recursive: true });
      this.#forgetBelow(relative);
    } else unlinkSync(this.#path(relative));
    this.#specialFiles.forget(relative);
    if (existing.isDirectory() || existing.isSymbolicLink()) this.#resolved.clear();
  }

  #forgetBelow(relative: string): void {
    const isInside = (path: string): boolean => path === relative || path.startsWith(`${relative}/`);
    for (const path of [...this.#implied].filter(isInside)) this.#implied.delete(path);
    for (const path of [...this.#directoryTimes.keys()].filter(isInside)) this.#directoryTimes.delete(path);
    for (const path of [...this.#linksBelow.keys()].filter(isInside)) this.#linksBelow.delete(path);
    this.#specialFiles.forgetBelow(relative);
  }

  #create(entry: TarEntry, relative: string): void {
    const path = this.#path(relative);
    switch (entry.type) {
      case 'file': {
        const descriptor = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, entry.mode & 0o777);
        this.#file = { descriptor, entry };
        break;
      }
      case 'directory':
        if (statOf(`${this.#root}/${relative}`) === undefined) mkdirSync(path, { mode: 0o700 });
        this.#implied.delete(relative);
        this.#setDirectory(relative, entry);
        break;
      case 'symlink':
        symlinkSync(systemPath(entry.linkTarget), path);
        lchownSync(path, entry.uid, entry.gid);
        lutimesSync(path, entry.modified, entry.modified);
        break;
      case 'hardlink':
        this.#link(entry, relative);
        return;
      default:
        this.#specialFiles.create(entry, `${this.#root}/${relative}`);
    }
    if (entry.xattrs.size > 0) this.#specialFiles.rememberXattrs(relative, entry.xattrs);
  }

  #link(entry: TarEntry, relative: string): void {
    const names = entryComponents(entry.linkTarget);
    const name = names.pop();
    if (name === undefined) throw refused(entry.path, 'links to the root');
    const parent = this.#resolveParent(names);
    const target = parent === '' ? name : `${parent}/${name}`;
    const stats = statOf(`${this.#root}/${target}`);
    if (stats?.isDirectory()) throw refused(entry.path, `links to a directory, ${printable(entry.linkTarget)}`);
    // The target may be in a layer below; it is looked for when the layers are merged.
    if (stats === undefined) this.#linksBelow.set(relative, target);
    else linkSync(this.#path(target), this.#path(relative));
  }

  #setDirectory(relative: string, entry: TarEntry): void {
    const path = this.#path(relative);
    lchownSync(path, entry.uid, entry.gid);
    chmodSync(path, entry.mode);
    this.#directoryTimes.set(relative, entry.modified);
    if (relative === '' && entry.xattrs.size > 0) this.#specialFiles.rememberXattrs('.', entry.xattrs);
  }

  #path(relative: string): string | Buffer {
    return systemPath(relative === '' ? this.#root : `${this.#root}/${relative}`);
  }
}
