import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/**
 * True for the key of a snapshot into which containerd unpacks a layer (`extract-TIME-RANDOM CHAIN`, within the prefix of
 * its metadata store).
 */
export const isExtraction = (key: string): boolean => /(?:^|\/)extract-\S+ \S+$/.test(key);

/**
 * Directories into which containerd unpacks a layer although it need not: it verifies what it unpacked before it commits
 * it, so the layer has to go somewhere. Each lives until its snapshot is committed or removed; nothing reads it.
 */
export class Scratch {
  readonly #root: string;

  /** Keeps the directories under `root`; those of keys that are not `active` any more are removed. */
  constructor(root: string, active: readonly string[]) {
    this.#root = root;
    mkdirSync(root, { recursive: true, mode: 0o700 });
    const kept = new Set(active.map((key) => this.#name(key)));
    for (const name of readdirSync(root)) {
      if (!kept.has(name)) rmSync(join(root, name), { recursive: true, force: true });
    }
  }

  #name(key: string): string {
    return createHash('sha256').update(key).digest('hex');
  }

  /** The path of a key's directory. */
  path(key: string): string {
    return join(this.#root, this.#name(key));
  }

  /** Makes a key's directory. */
  make(key: string): void {
    mkdirSync(this.path(key), { recursive: true, mode: 0o755 });
  }

  /** Removes a key's directory with what was unpacked into it; nothing where there is none. */
  remove(key: string): void {
    rmSync(this.path(key), { recursive: true, force: true });
  }
}
