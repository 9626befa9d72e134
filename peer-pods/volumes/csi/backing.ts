import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { runProgram } from './command.ts';

/** How a volume is given to one pod. */
export type PublishedAs = 'mount' | 'direct' | 'block';

/** Where volumes are in use: target path → how. */
export type Published = Readonly<Record<string, PublishedAs>>;

const fileName = 'disk.img';
const publishedName = 'published.json';
const startBytes = 1 << 20;

/**
 * Volumes as sparse files of one folder, behind loop devices while they are in use. What is in use is on disk, so that a
 * restarted driver knows it.
 */
export class Backing {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes a volume; one that is there stays as it is. */
  async create(id: string, bytes: number): Promise<void> {
    const folder = this.#folder(id);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await using file = await open(join(folder, fileName), 'a', 0o600);
    if ((await file.stat()).size === 0) await file.truncate(bytes);
  }

  /** Removes a volume with all its data. @throws SealpodError STORAGE_CONFLICT where it is in use */
  async remove(id: string): Promise<void> {
    const targets = Object.keys(await this.published(id));
    if (targets.length > 0)
      throw new SealpodError('STORAGE_CONFLICT', `volume ${id} is in use at ${targets.join(', ')}`);
    await this.#detach(id);
    await rm(this.#folder(id), { recursive: true, force: true });
  }

  async published(id: string): Promise<Published> {
    const text = await readFile(join(this.#folder(id), publishedName), 'utf8').catch(absent);
    return text === undefined ? {} : (JSON.parse(text) as Published);
  }

  /** Notes a use before it begins. */
  async publish(id: string, target: string, as: PublishedAs): Promise<void> {
    await this.#write(id, { ...(await this.published(id)), [target]: as });
  }

  /** Notes the end of a use; the loop device goes with the last. */
  async unpublish(id: string, target: string): Promise<void> {
    const { [target]: _, ...left } = await this.published(id);
    if (!(await this.#exists(id))) return;
    await this.#write(id, left);
    if (Object.keys(left).length === 0) await this.#detach(id);
  }

  /** The loop device of a volume. @throws SealpodError NOT_FOUND, STORAGE where there is none to be had */
  async device(id: string): Promise<string> {
    if (!(await this.#exists(id))) throw new SealpodError('NOT_FOUND', `there is no volume ${id}`);
    const [present] = await this.#devices(id);
    return present ?? (await runProgram('losetup', '--find', '--show', this.#file(id))).trim();
  }

  /** The first bytes of a volume. */
  async start(id: string): Promise<Buffer> {
    await using file = await open(this.#file(id), 'r');
    const { bytesRead, buffer } = await file.read(Buffer.alloc(startBytes), 0, startBytes, 0);
    return buffer.subarray(0, bytesRead);
  }

  async #detach(id: string): Promise<void> {
    for (const device of await this.#devices(id)) await runProgram('losetup', '--detach', device);
  }

  async #devices(id: string): Promise<string[]> {
    const list = await runProgram(
      'losetup',
      '--associated',
      this.#file(id),
      '--list',
      '--noheadings',
      '--output',
      'NAME',
    );
    return list
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '');
  }

  async #exists(id: string): Promise<boolean> {
    return (await stat(this.#file(id)).catch(absent)) !== undefined;
  }

  async #write(id: string, published: Published): Promise<void> {
    const path = join(this.#folder(id), publishedName);
    await writeFile(`${path}.new`, JSON.stringify(published), { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  #file(id: string): string {
    return join(this.#folder(id), fileName);
  }

  /** An id becomes part of a path. */
  #folder(id: string): string {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(id))
      throw new SealpodError('REQUEST_FORMAT', 'not the id of a volume');
    return join(this.#directory, id);
  }
}

/** For what may not be there. */
export function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
