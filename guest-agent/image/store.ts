import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import {
  type Credentials,
  fetchSignatures,
  findCredentials,
  formatReference,
  hostPlatform,
  type ImageIdentity,
  type ImageManifest,
  type ImagePolicy,
  type ImageReference,
  parseImagePolicy,
  parseManifest,
  parseReference,
  RegistryClient,
  requireAllowed,
  selectPlatform,
} from '@sealpod/registry';
import { type ImageConfiguration, maxConfigurationBytes, parseImageConfiguration } from './configuration.ts';
import { publishImage, unpackImage } from './image-unpack.ts';
import { createKeyUnwrapper, type GetResource, type UnwrapKey } from './layer-keys.ts';
import { createOverlayMounter, type OverlayMounter } from './overlay.ts';
import { endpointsFor, type RegistryEndpoint, type RegistryRule } from './registry-rules.ts';
import { SharedWork } from './shared-work.ts';
import { defaultUnpackLimits, type SpecialFileTools, type UnpackLimits } from './unpack/index.ts';

/** A text of measured configuration, given directly or as a resource of the key broker. */
export type ConfiguredText = { readonly text: string } | { readonly uri: string };

export interface ImageStoreOptions {
  /** Directory for images and containers' layers, of this store alone; on a file system that overlayfs can write to. */
  readonly workDirectory: string;
  /** containers-policy.json subset; without one every image is refused. */
  readonly imagePolicy?: ConfiguredText;
  /** `auth.json`. */
  readonly credentials?: ConfiguredText;
  readonly registries?: readonly RegistryRule[];
  /** PEM certificates of registries, trusted besides the built-in ones. */
  readonly certificateAuthorities?: readonly string[];
  /** Fetches from the key broker. */
  readonly getResource: GetResource;
  /** Unwraps layer keys; by default with keys from `getResource`, each asked for once a pull. */
  readonly unwrapKey?: UnwrapKey;
  readonly mounter?: OverlayMounter;
  readonly tools?: SpecialFileTools;
  readonly limits?: UnpackLimits;
  /** As many as there are processors by default. */
  readonly maxConcurrentLayers?: number;
  /** Told of what was left out of an image, see {@link SpecialFileTools}. */
  readonly notice?: (text: string) => void;
}

/** A root file system that is ready for a container. */
export interface PulledImage {
  /** Of the manifest for this platform, not of an index. */
  readonly manifestDigest: string;
  readonly configDigest: string;
  readonly config: ImageConfiguration;
  /** `<bundle>/rootfs`. */
  readonly rootfs: string;
}

/** Images of one guest. */
export interface ImageStore {
  /**
   * Pulls an image and mounts a writable root file system of it at `<bundleDirectory>/rootfs`. Policy is checked each
   * time, also where the image is already here. Pulls of one image at the same time share the work.
   *
   * @throws SealpodError its message begins with `Failed to pull image`; IMG_POLICY_DENY, IMG_DECRYPT_KEY, IMG_AUTH,
   *   IMG_DIGEST, IMG_FORMAT, IMG_UNPACK, IMG_REGISTRY, POLICY_INVALID, and what `getResource` throws
   */
  pull(imageReference: string, bundleDirectory: string, signal?: AbortSignal): Promise<PulledImage>;
  /** Unmounts what {@link pull} mounted and removes what the container wrote. */
  release(bundleDirectory: string): Promise<void>;
}

/** An image that was found at a registry and allowed by policy. */
interface ResolvedImage {
  readonly client: RegistryClient;
  readonly repository: string;
  readonly manifest: ImageManifest;
  readonly manifestDigest: string;
}

/** Opens the store; what an earlier process left in quarantine is removed before the first pull. */
export function createImageStore(options: ImageStoreOptions): ImageStore {
  return new GuestImageStore(options);
}

class GuestImageStore implements ImageStore {
  readonly #options: ImageStoreOptions;
  readonly #mounter: OverlayMounter;
  readonly #unpacking = new SharedWork<void>();
  readonly #writable = new Map<string, string>();
  #ready: Promise<void> | undefined;

  constructor(options: ImageStoreOptions) {
    this.#options = options;
    this.#mounter = options.mounter ?? createOverlayMounter();
  }

  async pull(
    imageReference: string,
    bundleDirectory: string,
    signal = new AbortController().signal,
  ): Promise<PulledImage> {
    try {
      this.#ready ??= this.#prepare();
      await this.#ready;
      const reference = parseReference(imageReference);
      const policy = await this.#policy();
      // Without a policy nothing is asked of the network.
      if (policy === undefined) await requireAllowed(policy, { reference, manifestDigest: '' });
      const image = await this.#resolve(reference, policy, signal);
      try {
        const config = await this.#unpacked(image, signal);
        const rootfs = await this.#mount(image.manifestDigest, bundleDirectory);
        return { manifestDigest: image.manifestDigest, configDigest: image.manifest.config.digest, config, rootfs };
      } finally {
        image.client.close();
      }
    } catch (error) {
      throw pullFailure(imageReference, error);
    }
  }

  async release(bundleDirectory: string): Promise<void> {
    const writable = this.#writable.get(bundleDirectory);
    if (writable === undefined) return;
    await this.#mounter.unmount(join(bundleDirectory, 'rootfs'));
    this.#writable.delete(bundleDirectory);
    await rm(writable, { recursive: true, force: true });
  }

  async #prepare(): Promise<void> {
    await rm(this.#directory('quarantine'), { recursive: true, force: true });
    for (const name of ['quarantine', 'images', 'containers']) {
      await mkdir(this.#directory(name), { recursive: true, mode: 0o700 });
    }
  }

  async #text(configured: ConfiguredText | undefined): Promise<string | Uint8Array | undefined> {
    if (configured === undefined) return undefined;
    return 'text' in configured ? configured.text : this.#options.getResource(configured.uri);
  }

  async #policy(): Promise<ImagePolicy | undefined> {
    const text = await this.#text(this.#options.imagePolicy);
    return text === undefined ? undefined : parseImagePolicy(text);
  }

  /** Finds the image at its registry, or at a mirror, and asks the policy about what was found. */
  async #resolve(
    reference: ImageReference,
    policy: ImagePolicy | undefined,
    signal: AbortSignal,
  ): Promise<ResolvedImage> {
    const authFile = await this.#text(this.#options.credentials);
    const failures: unknown[] = [];
    for (const endpoint of endpointsFor(reference, this.#options.registries ?? [])) {
      const credentials =
        authFile === undefined ? undefined : findCredentials(Buffer.from(authFile), endpoint.reference);
      const client = this.#client(endpoint, credentials);
      try {
        const { repository } = endpoint.reference;
        // Signatures lie beside the image, at a mirror too.
        const source = {
          signatures: (digest: string) => fetchSignatures(client, repository, digest, signal),
          key: this.#options.getResource,
        };
        const allow = (image: ImageIdentity) => requireAllowed(policy, image, source);
        return await resolveAt(client, reference, endpoint, allow, signal);
      } catch (error) {
        client.close();
        signal.throwIfAborted();
        // A refusal of the policy holds for every mirror.
        if (error instanceof SealpodError && error.code === 'IMG_POLICY_DENY') throw error;
        failures.push(error);
      }
    }
    if (failures.length === 1) throw failures[0];
    const message = failures.map((failure) => asSealpodError(failure).message).join('; ');
    throw new SealpodError(asSealpodError(failures.at(-1)).code, message, { cause: new AggregateError(failures) });
  }

  #client(endpoint: RegistryEndpoint, credentials: Credentials | undefined): RegistryClient {
    const { registry } = endpoint.reference;
    return new RegistryClient({
      registry,
      plainHttpHosts: new Set(endpoint.plainHttp ? [registry] : []),
      credentials,
      ...(this.#options.certificateAuthorities === undefined
        ? {}
        : { certificateAuthorities: this.#options.certificateAuthorities }),
    });
  }

  /** The image's configuration; its root file system is in place when this returns. */
  async #unpacked(image: ResolvedImage, signal: AbortSignal): Promise<ImageConfiguration> {
    const { client, repository, manifest, manifestDigest } = image;
    const configuration = parseImageConfiguration(
      await client.fetchBlob(repository, manifest.config, maxConfigurationBytes, signal),
    );
    if (existsSync(this.#imageDirectory(manifestDigest))) return configuration;
    await this.#unpacking.run(manifestDigest, signal, (shared) => this.#unpack(image, configuration, shared));
    return configuration;
  }

  async #unpack(image: ResolvedImage, configuration: ImageConfiguration, signal: AbortSignal): Promise<void> {
    const quarantine = await mkdtemp(join(this.#directory('quarantine'), 'image-'));
    const { getResource, unwrapKey, limits, maxConcurrentLayers, tools, notice } = this.#options;
    try {
      await unpackImage({
        ...image,
        configuration,
        unwrapKey: unwrapKey ?? createKeyUnwrapper(getResource),
        quarantine,
        limits: limits ?? defaultUnpackLimits,
        concurrency: maxConcurrentLayers ?? availableParallelism(),
        tools: tools ?? {},
        notice: notice ?? (() => undefined),
        signal,
      });
      const record = JSON.stringify({ manifest: image.manifestDigest, config: image.manifest.config.digest });
      await publishImage(quarantine, this.#imageDirectory(image.manifestDigest), record);
    } catch (error) {
      await rm(quarantine, { recursive: true, force: true });
      throw error;
    }
  }

  async #mount(manifestDigest: string, bundleDirectory: string): Promise<string> {
    if (this.#writable.has(bundleDirectory)) {
      throw new SealpodError('IMG_UNPACK', `${bundleDirectory} already has a root file system`);
    }
    const writable = join(this.#directory('containers'), randomUUID());
    const target = join(bundleDirectory, 'rootfs');
    this.#writable.set(bundleDirectory, writable);
    try {
      for (const path of [join(writable, 'upper'), join(writable, 'work'), target])
        await mkdir(path, { recursive: true });
      const lower = join(this.#imageDirectory(manifestDigest), 'rootfs');
      await this.#mounter.mount({ lower, upper: join(writable, 'upper'), work: join(writable, 'work'), target });
      return target;
    } catch (error) {
      this.#writable.delete(bundleDirectory);
      await rm(writable, { recursive: true, force: true });
      throw error;
    }
  }

  #imageDirectory(manifestDigest: string): string {
    return join(this.#directory('images'), manifestDigest.replace(':', '-'));
  }

  #directory(name: string): string {
    return join(this.#options.workDirectory, name);
  }
}

async function resolveAt(
  client: RegistryClient,
  asked: ImageReference,
  { reference }: RegistryEndpoint,
  allow: (image: ImageIdentity) => Promise<void>,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  const { repository } = reference;
  const top = await client.fetchManifest(repository, reference.digest ?? reference.tag ?? 'latest', signal);
  const parsed = parseManifest(top.bytes, top.mediaType);
  if (parsed.kind === 'manifest') {
    await allow({ reference: asked, manifestDigest: top.digest });
    return { client, repository, manifest: parsed, manifestDigest: top.digest };
  }
  const chosen = selectPlatform(parsed, hostPlatform());
  await allow({ reference: asked, manifestDigest: chosen.digest, indexDigest: top.digest });
  const fetched = await client.fetchManifest(repository, chosen.digest, signal);
  const manifest = parseManifest(fetched.bytes, chosen.mediaType);
  if (manifest.kind !== 'manifest') throw new SealpodError('IMG_FORMAT', 'an image index names another index');
  return { client, repository, manifest, manifestDigest: chosen.digest };
}

function pullFailure(imageReference: string, error: unknown): SealpodError {
  const { code, message, detail } = asSealpodError(error);
  let name = JSON.stringify(imageReference.slice(0, 256));
  try {
    name = formatReference(parseReference(imageReference));
  } catch {
    // A malformed reference is shown as it was given.
  }
  return new SealpodError(code, `Failed to pull image ${name}: ${message}`, { ...detail, cause: error });
}
