import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { type PayloadFile, type PayloadRecord, payloadRecordName, sha256Of } from './payload.ts';

/** What one look at the host changed. */
export interface Placed {
  /** Files that were missing or different, and were placed again. */
  readonly repaired: readonly string[];
  /** Whether `current` names another release than before. */
  readonly switched: boolean;
}

/** Folder name of a release: people see the version, the digest tells builds apart. */
export const releaseName = ({ version, digest }: PayloadRecord): string => `${version}-${digest.slice(0, 16)}`;

/**
 * Places a release on the host, beside earlier ones: `versions/<name>` below the prefix, and `current`, a link that is
 * switched in one step. What runs keeps the files it was started from.
 */
export class Placement {
  readonly #payload: string;
  readonly #record: PayloadRecord;
  readonly #hostRoot: string;
  readonly #prefix: string;
  /** What the file system said of a file when its content was last seen to be right. */
  readonly #verified = new Map<string, string>();

  /** @param prefix on the host, without its root */
  constructor(payload: string, record: PayloadRecord, host: { readonly root: string; readonly prefix: string }) {
    this.#payload = payload;
    this.#record = record;
    this.#hostRoot = host.root;
    this.#prefix = host.prefix;
  }

  get #versions(): string {
    return join(this.#hostRoot, this.#prefix, 'versions');
  }

  get #folder(): string {
    return join(this.#versions, releaseName(this.#record));
  }

  get #link(): string {
    return join(this.#hostRoot, this.#prefix, 'current');
  }

  /** Makes the release complete and current. @throws SealpodError STORAGE */
  ensure(): Placed {
    try {
      const repaired = this.#ensureFiles();
      const target = join('versions', releaseName(this.#record));
      const switched = linkTarget(this.#link) !== target;
      if (switched) {
        const next = `${this.#link}.new`;
        rmSync(next, { recursive: true, force: true });
        symlinkSync(target, next);
        // Something else in its place could not be replaced by a link.
        if (existsSync(this.#link) && linkTarget(this.#link) === undefined) rmSync(this.#link, { recursive: true });
        renameSync(next, this.#link);
      }
      return { repaired, switched };
    } catch (cause) {
      throw new SealpodError('STORAGE', `programs cannot be placed below ${this.#prefix}`, {
        cause,
        actual: cause instanceof Error ? cause.message : String(cause),
        fix: 'the prefix has to be writable and have 1 GiB of free space; choose another with "prefix"',
      });
    }
  }

  #ensureFiles(): string[] {
    if (!existsSync(this.#folder)) {
      this.#placeAll();
      return [];
    }
    const repaired = this.#record.files.filter((file) => !this.#isRight(file));
    for (const file of repaired) this.#place(this.#folder, file);
    if (!existsSync(join(this.#folder, payloadRecordName))) this.#placeRecord(this.#folder);
    return repaired.map(({ path }) => path);
  }

  /** Under another name first, so that a folder of a release is always complete. */
  #placeAll(): void {
    const fresh = join(this.#versions, `.new-${releaseName(this.#record)}`);
    rmSync(fresh, { recursive: true, force: true });
    for (const directory of [dirname(this.#versions), this.#versions, fresh]) makeDirectory(directory);
    for (const file of this.#record.files) this.#place(fresh, file);
    this.#placeRecord(fresh);
    renameSync(fresh, this.#folder);
    for (const file of this.#record.files) this.#isRight(file);
  }

  #placeRecord(folder: string): void {
    copyFileSync(join(this.#payload, payloadRecordName), join(folder, payloadRecordName));
    chmodSync(join(folder, payloadRecordName), 0o644);
  }

  /** A running program cannot be written to; renaming over it leaves the old file to who runs it. */
  #place(folder: string, file: PayloadFile): void {
    const path = join(folder, file.path);
    makeDirectory(dirname(path));
    const next = `${path}.new`;
    copyFileSync(join(this.#payload, file.path), next);
    chmodSync(next, file.mode);
    if (existsSync(path) && lstatSync(path).isDirectory()) rmSync(path, { recursive: true });
    renameSync(next, path);
  }

  /** Content is read again only where the file system says that something changed. */
  #isRight(file: PayloadFile): boolean {
    const path = join(this.#folder, file.path);
    const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
    if (found === undefined || !found.isFile()) return false;
    if (Number(found.size) !== file.size || Number(found.mode & 0o777n) !== file.mode) return false;
    const seen = [found.dev, found.ino, found.mtimeNs, found.ctimeNs].join();
    if (this.#verified.get(file.path) === seen) return true;
    if (sha256Of(path) !== file.sha256) return false;
    this.#verified.set(file.path, seen);
    return true;
  }

  /**
   * Removes releases that are not current and that no process uses, also what an interrupted placement left.
   *
   * @param executables paths of all running programs, on the host
   * @returns names of the releases that were removed
   */
  removeUnused(executables: readonly string[]): string[] {
    const current = releaseName(this.#record);
    const unused = readdirSync(this.#versions).filter((name) => {
      const folder = `${join(this.#prefix, 'versions', name)}/`;
      return name !== current && !executables.some((path) => path.includes(folder));
    });
    for (const name of unused) rmSync(join(this.#versions, name), { recursive: true, force: true });
    return unused;
  }
}

/** Removes every release and the link. The prefix stays where it holds other files. */
export function removeReleases(hostRoot: string, prefix: string): void {
  const directory = join(hostRoot, prefix);
  for (const name of ['current', 'current.new', 'versions']) {
    rmSync(join(directory, name), { recursive: true, force: true });
  }
  if (existsSync(directory) && readdirSync(directory).length === 0) rmSync(directory, { recursive: true });
}

function linkTarget(path: string): string | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? readlinkSync(path) : undefined;
}

function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path));
  mkdirSync(path, { mode: 0o755 });
  // The mode given to mkdir is subject to the umask.
  chmodSync(path, 0o755);
}
