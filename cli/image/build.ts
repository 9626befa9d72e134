import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { lstat, mkdir, readdir, readlink, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Descriptor, hostPlatform, mediaTypes } from '@sealpod/registry';
import { type Header, pack } from 'tar-stream';
import { blobPath, writeBlobFile, writeLayoutIndex } from './layout.ts';

/** One entry of an image's root file system; everything belongs to root. */
export type ImageEntry =
  | { readonly path: string; readonly type: 'directory'; readonly mode?: number }
  | { readonly path: string; readonly type: 'symlink'; readonly target: string }
  | {
      readonly path: string;
      readonly type: 'file';
      readonly mode?: number;
      readonly content: Uint8Array | { readonly file: string };
    };

/** What a container of the image runs (OCI image-spec, config.md). */
export interface ImageProcess {
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: readonly string[];
  readonly workingDirectory?: string;
  readonly user?: string;
}

export interface BuildImageOptions {
  /** Entries, or a directory whose files, directories and links become them (modes kept, owners and times not). */
  readonly root: readonly ImageEntry[] | { readonly directory: string };
  readonly process: ImageProcess;
  /** New OCI image layout. */
  readonly output: string;
  readonly tag: string;
}

const gzipLevel = 6;

/**
 * Builds an OCI image layout with one gzip layer. Equal input gives equal bytes: entries are sorted, times are zero,
 * owners are root, and no time of building is recorded.
 *
 * @returns descriptor of the manifest
 */
export async function buildImage(options: BuildImageOptions): Promise<Descriptor> {
  const entries = 'directory' in options.root ? await entriesOf(options.root.directory) : options.root;
  await mkdir(join(options.output, 'blobs', 'sha256'), { recursive: true });
  const layer = await writeLayer(options.output, entries);
  const config = Buffer.from(JSON.stringify(configuration(options.process, layer.diffId)));
  const manifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: {
      mediaType: mediaTypes.ociConfig,
      digest: await writeBlobFile(options.output, config),
      size: config.length,
    },
    layers: [layer.descriptor],
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = await writeBlobFile(options.output, bytes);
  const descriptor = { mediaType: mediaTypes.ociManifest, digest, size: bytes.length };
  await writeLayoutIndex(options.output, descriptor, options.tag);
  return descriptor;
}

function configuration(process: ImageProcess, diffId: string): object {
  const { entrypoint, command, environment, workingDirectory, user } = process;
  const config = {
    ...(user === undefined ? {} : { User: user }),
    ...(environment === undefined ? {} : { Env: environment }),
    ...(entrypoint === undefined ? {} : { Entrypoint: entrypoint }),
    ...(command === undefined ? {} : { Cmd: command }),
    ...(workingDirectory === undefined ? {} : { WorkingDir: workingDirectory }),
  };
  return { ...hostPlatform(), config, rootfs: { type: 'layers', diff_ids: [diffId] } };
}

async function writeLayer(
  output: string,
  entries: readonly ImageEntry[],
): Promise<{ readonly descriptor: Descriptor; readonly diffId: string }> {
  const archive = pack();
  const plain = createHash('sha256');
  const compressed = createHash('sha256');
  let size = 0;
  const part = join(output, 'layer.part');
  const writing = pipeline(
    archive,
    tap((chunk) => plain.update(chunk)),
    createGzip({ level: gzipLevel }),
    tap((chunk) => {
      compressed.update(chunk);
      size += chunk.length;
    }),
    createWriteStream(part),
  );
  const filling = fill(archive, entries).catch((error: unknown) => {
    archive.destroy(error instanceof Error ? error : new Error(String(error)));
    throw error;
  });
  await Promise.all([writing, filling]);
  const digest = `sha256:${compressed.digest('hex')}`;
  await rename(part, blobPath(output, digest));
  const descriptor = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size };
  return { descriptor, diffId: `sha256:${plain.digest('hex')}` };
}

async function fill(archive: ReturnType<typeof pack>, entries: readonly ImageEntry[]): Promise<void> {
  const sorted = entries.toSorted((left, right) => (left.path < right.path ? -1 : left.path > right.path ? 1 : 0));
  for (const entry of sorted) await addEntry(archive, entry);
  archive.finalize();
}

async function addEntry(archive: ReturnType<typeof pack>, entry: ImageEntry): Promise<void> {
  const name = entry.path.replace(/^\/+/, '');
  if (name === '' || name.split('/').includes('..'))
    throw new SealpodError('USAGE', `bad path ${JSON.stringify(entry.path)}`);
  const header = { name, uid: 0, gid: 0, uname: '', gname: '', mtime: new Date(0) };
  switch (entry.type) {
    case 'directory':
      archive.entry({ ...header, type: 'directory', mode: entry.mode ?? 0o755 });
      break;
    case 'symlink':
      archive.entry({ ...header, type: 'symlink', linkname: entry.target, mode: 0o777 });
      break;
    case 'file':
      await addFile(archive, { ...header, type: 'file', mode: entry.mode ?? 0o644 }, entry.content);
  }
}

async function addFile(
  archive: ReturnType<typeof pack>,
  header: Partial<Header> & { readonly name: string },
  content: Uint8Array | { readonly file: string },
): Promise<void> {
  if (content instanceof Uint8Array) {
    archive.entry(header, Buffer.from(content));
    return;
  }
  const { size } = await lstat(content.file);
  await pipeline(createReadStream(content.file), archive.entry({ ...header, size }));
}

async function entriesOf(directory: string): Promise<ImageEntry[]> {
  const names = await readdir(directory, { recursive: true });
  return Promise.all(
    names.map(async (path): Promise<ImageEntry> => {
      const file = join(directory, path);
      const stats = await lstat(file);
      const mode = stats.mode & 0o7777;
      if (stats.isDirectory()) return { path, type: 'directory', mode };
      if (stats.isSymbolicLink()) return { path, type: 'symlink', target: await readlink(file) };
      if (stats.isFile()) return { path, type: 'file', mode, content: { file } };
      throw new SealpodError('USAGE', `${file} is no file, directory or link`);
    }),
  );
}

function tap(see: (chunk: Buffer) => void): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      see(chunk);
      done(null, chunk);
    },
  });
}
