import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  type Credentials,
  type Descriptor,
  hostPlatform,
  type ImageManifest,
  type ImageReference,
  maxManifestBytes,
  parseManifest,
  parseReference,
  RegistryClient,
  selectPlatform,
} from '@sealpod/registry';
import { findInLayout, openBlobFile, readBlobFile } from './layout.ts';

/** Where an image is read from. */
export type ImageLocation =
  | { readonly kind: 'registry'; readonly reference: ImageReference }
  | { readonly kind: 'layout'; readonly directory: string; readonly tag?: string }
  | { readonly kind: 'archive'; readonly file: string; readonly tag?: string };

/** How registries are spoken to. */
export interface RegistryAccess {
  /** `host[:port]` of registries without TLS; none by default. */
  readonly plainHttpHosts?: ReadonlySet<string>;
  readonly credentials?: (reference: ImageReference) => Credentials | undefined;
  readonly certificateAuthorities?: readonly string[];
}

/** An image that can be read; {@link close} ends connections and removes temporary files. */
export interface OpenImage {
  readonly manifest: ImageManifest;
  readonly manifestDigest: string;
  /** The manifest as it was read, which its digest is of. */
  readonly manifestBytes: Buffer;
  /** Fails at its end where the bytes have not the digest. */
  openBlob(blob: Descriptor): Readable;
  close(): Promise<void>;
}

/**
 * Reads `oci:<directory>[:tag]`, `oci-archive:<file>[:tag]`, or an image reference.
 *
 * @throws SealpodError IMG_FORMAT, USAGE
 */
export function parseImageLocation(text: string): ImageLocation {
  const local = /^(oci|oci-archive):(.+?)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?$/.exec(text);
  const [, transport, path, tag] = local ?? [];
  if (path === undefined) return { kind: 'registry', reference: parseReference(text) };
  const tagged = tag === undefined ? {} : { tag };
  return transport === 'oci'
    ? { kind: 'layout', directory: path, ...tagged }
    : { kind: 'archive', file: path, ...tagged };
}

/** A client for the registry of `reference`. */
export function registryClient(reference: ImageReference, access: RegistryAccess): RegistryClient {
  return new RegistryClient({
    registry: reference.registry,
    plainHttpHosts: access.plainHttpHosts ?? new Set(),
    credentials: access.credentials?.(reference),
    ...(access.certificateAuthorities === undefined ? {} : { certificateAuthorities: access.certificateAuthorities }),
  });
}

/**
 * Opens an image for this machine's platform.
 *
 * @throws SealpodError NOT_FOUND, IMG_FORMAT, IMG_DIGEST, IMG_REGISTRY, IMG_AUTH
 */
export async function openImage(location: ImageLocation, access: RegistryAccess): Promise<OpenImage> {
  switch (location.kind) {
    case 'registry':
      return openRegistryImage(location.reference, access);
    case 'layout':
      return openLayoutImage(location.directory, location.tag);
    case 'archive':
      return openArchiveImage(location.file, location.tag);
  }
}

type ReadManifest = (digest: string) => Promise<Buffer>;

async function openRegistryImage(reference: ImageReference, access: RegistryAccess): Promise<OpenImage> {
  const client = registryClient(reference, access);
  try {
    const { repository } = reference;
    const top = await client.fetchManifest(repository, reference.digest ?? reference.tag ?? 'latest');
    const read: ReadManifest = async (digest) => (await client.fetchManifest(repository, digest)).bytes;
    const chosen = await chooseManifest({ ...top, mediaType: top.mediaType ?? '' }, read);
    return {
      ...chosen,
      openBlob: (blob) => client.openBlob(repository, blob),
      close: async () => client.close(),
    };
  } catch (error) {
    client.close();
    throw error;
  }
}

async function openLayoutImage(directory: string, tag: string | undefined): Promise<OpenImage> {
  const read: ReadManifest = (digest) => readBlobFile(directory, { digest }, maxManifestBytes);
  const { digest, mediaType } = await findInLayout(directory, tag);
  const chosen = await chooseManifest({ digest, mediaType, bytes: await read(digest) }, read);
  return { ...chosen, openBlob: (blob) => openBlobFile(directory, blob), close: async () => undefined };
}

async function openArchiveImage(file: string, tag: string | undefined): Promise<OpenImage> {
  const directory = await mkdtemp(join(tmpdir(), 'sealpod-archive-'));
  const close = (): Promise<void> => rm(directory, { recursive: true, force: true });
  try {
    await promisify(execFile)('tar', ['-xf', file, '-C', directory, '--no-same-owner', '--no-same-permissions']);
    const image = await openLayoutImage(directory, tag);
    return { ...image, close };
  } catch (cause) {
    await close();
    if (cause instanceof SealpodError) throw cause;
    throw new SealpodError('IMG_FORMAT', `${file} cannot be read as an OCI archive`, { cause });
  }
}

async function chooseManifest(
  top: { readonly bytes: Buffer; readonly digest: string; readonly mediaType: string },
  read: ReadManifest,
): Promise<Pick<OpenImage, 'manifest' | 'manifestDigest' | 'manifestBytes'>> {
  const parsed = parseManifest(top.bytes, top.mediaType);
  if (parsed.kind === 'manifest') {
    return { manifest: parsed, manifestDigest: top.digest, manifestBytes: top.bytes };
  }
  const chosen = selectPlatform(parsed, hostPlatform());
  const manifestBytes = await read(chosen.digest);
  const manifest = parseManifest(manifestBytes, chosen.mediaType);
  if (manifest.kind !== 'manifest') throw new SealpodError('IMG_FORMAT', 'an image index names another index');
  return { manifest, manifestDigest: chosen.digest, manifestBytes };
}
