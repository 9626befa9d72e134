import { SealpodError } from '../errors.ts';

/** What a layer's media type says of its bytes, in the order in which they are undone: decrypt, then decompress. */
export interface LayerMediaType {
  readonly encrypted: boolean;
  readonly compression: 'none' | 'gzip' | 'zstd';
  readonly nondistributable: boolean;
}

const ociLayer = 'application/vnd.oci.image.layer.v1.tar';
const ociNondistributableLayer = 'application/vnd.oci.image.layer.nondistributable.v1.tar';

/** Docker's names (image manifest v2 schema 2) and the OCI names of the same bytes (OCI image-spec, media-types.md). */
const dockerAliases: Readonly<Record<string, string>> = {
  'application/vnd.docker.image.rootfs.diff.tar': ociLayer,
  'application/vnd.docker.image.rootfs.diff.tar.gzip': `${ociLayer}+gzip`,
  'application/vnd.docker.image.rootfs.diff.tar.zstd': `${ociLayer}+zstd`,
  'application/vnd.docker.image.rootfs.foreign.diff.tar': ociNondistributableLayer,
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip': `${ociNondistributableLayer}+gzip`,
};

const encryptedSuffix = '+encrypted';

/**
 * Reads a layer media type: OCI tar, gzip and zstd, their non-distributable forms, Docker's aliases, each also with
 * `+encrypted`. Upstream writes `+encrypted` on Docker's names where a tool kept them, so those are read too.
 *
 * @throws SealpodError IMG_FORMAT for any other media type
 */
export function parseLayerMediaType(mediaType: string): LayerMediaType {
  const encrypted = mediaType.endsWith(encryptedSuffix);
  const plain = toOciName(encrypted ? mediaType.slice(0, -encryptedSuffix.length) : mediaType);
  for (const nondistributable of [false, true]) {
    const base = nondistributable ? ociNondistributableLayer : ociLayer;
    if (plain === base) return { encrypted, compression: 'none', nondistributable };
    if (plain === `${base}+gzip`) return { encrypted, compression: 'gzip', nondistributable };
    if (plain === `${base}+zstd`) return { encrypted, compression: 'zstd', nondistributable };
  }
  throw new SealpodError('IMG_FORMAT', `unsupported layer media type ${JSON.stringify(mediaType.slice(0, 128))}`);
}

/** The OCI media type of `layer`; Docker's aliases are never written. */
export function formatLayerMediaType(layer: LayerMediaType): string {
  const base = layer.nondistributable ? ociNondistributableLayer : ociLayer;
  const compressed = layer.compression === 'none' ? base : `${base}+${layer.compression}`;
  return layer.encrypted ? compressed + encryptedSuffix : compressed;
}

function toOciName(mediaType: string): string {
  return Object.hasOwn(dockerAliases, mediaType) ? (dockerAliases[mediaType] ?? mediaType) : mediaType;
}
