import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  type JsonValue,
  optionalMember,
  parseJson,
} from '@sealpod/protocol/json';
import { isDigest } from './digest.ts';

export const mediaTypes = {
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

/** A reference to content by digest (OCI image-spec, descriptor.md). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A platform as an index names it. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
}

/** An image manifest, OCI or Docker schema 2. */
export interface ImageManifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  /** The whole document, with members this type does not name. */
  readonly document: JsonObject;
}

/** An image index, OCI or Docker manifest list. */
export interface ImageIndex {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly (Descriptor & { readonly platform?: Platform })[];
}

/** Largest manifest or index accepted, as registries limit it. */
export const maxManifestBytes = 4 * 1024 * 1024;
const maxLayers = 500;
const maxManifests = 1000;
const code = 'IMG_FORMAT';

/**
 * Parses a manifest or an index. A document that could be read as both (CVE-2021-41190) or whose own media type differs
 * from `contentType` is refused. That the bytes have the digest they were asked for by is the caller's to check.
 *
 * @param contentType what the registry or the descriptor called it, without parameters
 * @throws SealpodError IMG_FORMAT, REQUEST_TOO_LARGE
 */
export function parseManifest(bytes: Uint8Array, contentType?: string): ImageManifest | ImageIndex {
  const what = 'image manifest';
  const document = asJsonObject(parseJson(bytes, { maxSize: maxManifestBytes, maxDepth: 32, what, code }), what, code);
  const own = optionalMember(document, 'mediaType');
  const mediaType = own === undefined ? contentType : asJsonText(own, 'mediaType', code);
  if (contentType !== undefined && mediaType !== contentType) {
    throw new SealpodError(code, 'media type of the manifest is ambiguous', {
      expected: contentType.slice(0, 128),
      actual: `${mediaType}`.slice(0, 128),
    });
  }
  const schemaVersion = optionalMember(document, 'schemaVersion');
  if (schemaVersion !== 2) {
    throw new SealpodError(code, 'unsupported manifest schema version', {
      expected: '2',
      actual: JSON.stringify(schemaVersion ?? null).slice(0, 32),
    });
  }
  switch (mediaType) {
    case mediaTypes.ociManifest:
    case mediaTypes.dockerManifest:
      refuseMember(document, 'manifests');
      return {
        kind: 'manifest',
        mediaType,
        config: parseDescriptor(optionalMember(document, 'config'), 'config'),
        layers: parseList(document, 'layers', maxLayers).map((item, at) => parseDescriptor(item, `layers[${at}]`)),
        document,
      };
    case mediaTypes.ociIndex:
    case mediaTypes.dockerList:
      refuseMember(document, 'layers');
      refuseMember(document, 'config');
      return {
        kind: 'index',
        mediaType,
        manifests: parseList(document, 'manifests', maxManifests).map((item, at) => ({
          ...parseDescriptor(item, `manifests[${at}]`),
          ...parsePlatform(item),
        })),
      };
    default:
      throw new SealpodError(code, `unsupported manifest media type ${JSON.stringify(`${mediaType}`.slice(0, 128))}`);
  }
}

/**
 * The manifest of an index for a platform. An entry without a platform is taken only where it is the sole entry.
 *
 * @throws SealpodError IMG_FORMAT where there is none
 */
export function selectPlatform(index: ImageIndex, platform: Platform): Descriptor {
  const matching = index.manifests.find(
    (entry) => entry.platform?.os === platform.os && entry.platform.architecture === platform.architecture,
  );
  const sole = index.manifests.length === 1 ? index.manifests[0] : undefined;
  const chosen = matching ?? (sole?.platform === undefined ? sole : undefined);
  if (chosen === undefined) {
    throw new SealpodError(code, 'the image has no manifest for this platform', {
      expected: `${platform.os}/${platform.architecture}`,
      actual: index.manifests
        .slice(0, 16)
        .map((entry) => `${entry.platform?.os}/${entry.platform?.architecture}`)
        .join(', '),
    });
  }
  return chosen;
}

/** The platform of this machine in OCI's names. */
export function hostPlatform(): Platform {
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  return { os: 'linux', architecture };
}

/** Parses a descriptor; unknown members are dropped. @throws SealpodError IMG_FORMAT */
export function parseDescriptor(value: JsonValue | undefined, what: string): Descriptor {
  const object = asJsonObject(value, what, code);
  const digest = asJsonText(optionalMember(object, 'digest'), `${what}.digest`, code);
  if (!isDigest(digest)) throw new SealpodError(code, `${what} has a malformed digest`);
  const size = optionalMember(object, 'size');
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw new SealpodError(code, `${what} has no valid size`);
  }
  const annotations = optionalMember(object, 'annotations');
  return {
    mediaType: asJsonText(optionalMember(object, 'mediaType'), `${what}.mediaType`, code),
    digest,
    size,
    ...(annotations === undefined || annotations === null ? {} : { annotations: parseAnnotations(annotations, what) }),
  };
}

function parseAnnotations(value: JsonValue, what: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(asJsonObject(value, `${what}.annotations`, code)).map(([name, text]) => [
      name,
      asJsonText(text, `${what}.annotations`, code),
    ]),
  );
}

function parsePlatform(value: JsonValue): { readonly platform?: Platform } {
  const platform = optionalMember(asJsonObject(value, 'manifest', code), 'platform');
  if (platform === undefined || platform === null) return {};
  const object = asJsonObject(platform, 'platform', code);
  return {
    platform: {
      os: asJsonText(optionalMember(object, 'os'), 'platform.os', code),
      architecture: asJsonText(optionalMember(object, 'architecture'), 'platform.architecture', code),
    },
  };
}

function parseList(document: JsonObject, name: string, limit: number): readonly JsonValue[] {
  const value = optionalMember(document, name);
  if (!Array.isArray(value)) throw new SealpodError(code, `manifest has no ${name}`);
  if (value.length > limit) throw new SealpodError(code, `manifest has more than ${limit} ${name}`);
  return value;
}

function refuseMember(document: JsonObject, name: string): void {
  if (optionalMember(document, name) !== undefined) {
    throw new SealpodError(code, `manifest is ambiguous: it also has ${name}`);
  }
}
