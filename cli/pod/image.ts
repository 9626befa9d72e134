import { SealpodError } from '@sealpod/protocol/errors';
import {
  formatReference,
  hostPlatform,
  type ImageManifest,
  type ImageReference,
  parseManifest,
  parseReference,
  RegistryClient,
  selectPlatform,
} from '@sealpod/registry';
import type { EnvironmentState } from '../development/state.ts';

/** An image as a pod names it: by digest, with the command it brings. */
export interface ResolvedImage {
  /** `host:port/repository@sha256:…` of the image manifest (not of an index). */
  readonly reference: string;
  /** Entry point and arguments of the image configuration. */
  readonly command: readonly string[];
}

const maxConfigBytes = 4 << 20;

/** The full reference of `text`; one without a registry host means the registry of the environment. */
export function environmentReference(state: EnvironmentState, text: string): ImageReference {
  const first = text.split('/')[0] ?? '';
  const hasHost = text.includes('/') && (/[.:]/.test(first) || first === 'localhost');
  return parseReference(hasHost ? text : `${state.registry ?? ''}/${text}`);
}

/** A client of the registry that `reference` names; the environment's own is spoken to by plain HTTP. */
export function registryClient(state: EnvironmentState, reference: ImageReference): RegistryClient {
  return new RegistryClient({
    registry: reference.registry,
    plainHttpHosts: new Set(state.registry === undefined ? [] : [state.registry]),
  });
}

/**
 * Asks the registry what `text` is now. The pod is pinned to that digest, in its initdata and thus in its measurement.
 *
 * @throws SealpodError IMG_REGISTRY, IMG_AUTH, IMG_FORMAT
 */
export async function resolveImage(state: EnvironmentState, text: string): Promise<ResolvedImage> {
  const reference = environmentReference(state, text);
  const client = registryClient(state, reference);
  const { manifest, digest } = await fetchImageManifest(client, reference);
  const bytes = await client.fetchBlob(reference.repository, manifest.config, maxConfigBytes);
  const config = parseConfig(bytes);
  const { tag: _tag, ...named } = reference;
  return {
    reference: formatReference({ ...named, digest }),
    command: [...(config.config?.Entrypoint ?? []), ...(config.config?.Cmd ?? [])],
  };
}

async function fetchImageManifest(
  client: RegistryClient,
  reference: ImageReference,
): Promise<{ readonly manifest: ImageManifest; readonly digest: string }> {
  const fetched = await client.fetchManifest(reference.repository, reference.digest ?? reference.tag ?? 'latest');
  const parsed = parseManifest(fetched.bytes, fetched.mediaType);
  if (parsed.kind === 'manifest') return { manifest: parsed, digest: fetched.digest };
  const { digest } = selectPlatform(parsed, hostPlatform());
  const chosen = await client.fetchManifest(reference.repository, digest);
  const manifest = parseManifest(chosen.bytes, chosen.mediaType);
  if (manifest.kind !== 'manifest')
    throw new SealpodError('IMG_FORMAT', 'the index names another index', { actual: digest });
  return { manifest, digest };
}

interface ImageConfig {
  readonly config?: { readonly Entrypoint?: readonly string[] | null; readonly Cmd?: readonly string[] | null };
}

function parseConfig(bytes: Buffer): ImageConfig {
  try {
    return JSON.parse(bytes.toString('utf8')) as ImageConfig;
  } catch (cause) {
    throw new SealpodError('IMG_FORMAT', 'the image configuration is no JSON', { cause });
  }
}
