import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

/** What was created, so that removal takes away that and nothing else. Paths are the host's, without its root. */
export interface InstallRecord {
  readonly files: string[];
  readonly directories: string[];
  /** containerd's configuration did not exist before. */
  createdConfiguration: boolean;
}

/** Reads the record at `path` below `root`; an empty one where there is none. */
export function readRecord(root: string, path: string): InstallRecord {
  if (!existsSync(join(root, path))) return { files: [], directories: [], createdConfiguration: false };
  return JSON.parse(readFileSync(join(root, path), 'utf8')) as InstallRecord;
}

/** Writes files and directories below `root` where they differ from what is there, and records them. */
export class Writer {
  changed = false;
  readonly #root: string;
  readonly #record: InstallRecord;

  constructor(root: string, record: InstallRecord) {
    this.#root = root;
    this.#record = record;
  }

  directory(path: string): void {
    if (existsSync(join(this.#root, path))) return;
    this.directory(dirname(path));
    mkdirSync(join(this.#root, path), { mode: 0o755 });
    if (!this.#record.directories.includes(path)) this.#record.directories.push(path);
    this.changed = true;
  }

  /** @returns whether it was written */
  file(path: string, content: string | Buffer, mode = 0o644): boolean {
    this.directory(dirname(path));
    if (!this.#record.files.includes(path)) this.#record.files.push(path);
    const file = join(this.#root, path);
    const same =
      existsSync(file) && readFileSync(file).equals(Buffer.from(content)) && (statSync(file).mode & 0o777) === mode;
    if (same) return false;
    writeFileSync(file, content, { mode });
    chmodSync(file, mode);
    this.changed = true;
    return true;
  }

  /** Records a file that `make` writes: where it is missing, and where something written before it changed. */
  made(path: string, make: (file: string) => void): void {
    this.directory(dirname(path));
    if (!this.#record.files.includes(path)) this.#record.files.push(path);
    const file = join(this.#root, path);
    if (existsSync(file) && !this.changed) return;
    make(file);
    this.changed = true;
  }
}

/** Removes what a record names. A folder that holds other files stays. */
export function removeRecorded(root: string, record: InstallRecord): void {
  for (const path of record.files) rmSync(join(root, path), { force: true });
  removeEmptyDirectories(root, record.directories);
}

/** Removes those of the directories that hold nothing, inner ones first. */
export function removeEmptyDirectories(root: string, directories: readonly string[]): void {
  for (const path of directories.toSorted((left, right) => right.length - left.length)) {
    const directory = join(root, path);
    if (existsSync(directory) && readdirSync(directory).length === 0) rmdirSync(directory);
  }
}
