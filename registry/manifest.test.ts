import { describe, expect, it } from 'vitest';
import { mediaTypes, parseManifest, selectPlatform } from './manifest.ts';

const digest = (byte: string) => `sha256:${byte.repeat(32)}`;
const descriptor = { mediaType: 'application/octet-stream', digest: digest('aa'), size: 3 };
const manifest = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociManifest,
  config: { ...descriptor, mediaType: mediaTypes.ociConfig },
  layers: [descriptor, { ...descriptor, digest: digest('bb'), annotations: { name: 'value' } }],
};
const entry = (os: string, architecture: string, byte: string) => ({
  mediaType: mediaTypes.ociManifest,
  digest: digest(byte),
  size: 7,
  platform: { os, architecture },
});
const index = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociIndex,
  manifests: [entry('unknown', 'unknown', '00'), entry('linux', 'arm64', '11'), entry('linux', 'amd64', '22')],
};
const bytes = (document: unknown) => Buffer.from(JSON.stringify(document));

describe('parseManifest', () => {
  it('reads a manifest and keeps its document', () => {
    const parsed = parseManifest(bytes(manifest), mediaTypes.ociManifest);
    if (parsed.kind !== 'manifest') throw new Error('not a manifest');
    expect(parsed.config.digest).toBe(digest('aa'));
    expect(parsed.layers[1]?.annotations).toEqual({ name: 'value' });
    expect(parsed.document).toEqual(manifest);
  });

  it('takes the media type from outside where the document has none', () => {
    const { mediaType: _, ...rest } = manifest;
    expect(parseManifest(bytes(rest), mediaTypes.dockerManifest).mediaType).toBe(mediaTypes.dockerManifest);
    expect(() => parseManifest(bytes(rest))).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
  });

  it.each([
    ['another content type', manifest, mediaTypes.ociIndex],
    ['manifest with manifests', { ...manifest, manifests: [] }, mediaTypes.ociManifest],
    ['index with layers', { ...index, layers: [] }, mediaTypes.ociIndex],
    ['index with config', { ...index, config: descriptor }, mediaTypes.ociIndex],
    ['schema 1', { ...manifest, schemaVersion: 1 }, mediaTypes.ociManifest],
    ['no layers', { ...manifest, layers: undefined }, mediaTypes.ociManifest],
    ['too many layers', { ...manifest, layers: Array(501).fill(descriptor) }, mediaTypes.ociManifest],
    ['negative size', { ...manifest, config: { ...descriptor, size: -1 } }, mediaTypes.ociManifest],
    ['fractional size', { ...manifest, config: { ...descriptor, size: 1.5 } }, mediaTypes.ociManifest],
    ['digest with a path', { ...manifest, config: { ...descriptor, digest: '../x' } }, mediaTypes.ociManifest],
    ['annotation that is no text', { ...manifest, layers: [{ ...descriptor, annotations: { a: 1 } }] }, undefined],
    ['an array', [], undefined],
  ])('refuses %s', (_name, document, contentType) => {
    expect(() => parseManifest(bytes(document), contentType)).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
  });
});

describe('selectPlatform', () => {
  const parsed = parseManifest(bytes(index));
  if (parsed.kind !== 'index') throw new Error('not an index');

  it('takes the entry of the platform', () => {
    expect(selectPlatform(parsed, { os: 'linux', architecture: 'amd64' }).digest).toBe(digest('22'));
  });

  it('refuses where there is none, and names what there is', () => {
    try {
      selectPlatform(parsed, { os: 'linux', architecture: 's390x' });
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: 'IMG_FORMAT', detail: { actual: expect.stringContaining('linux/arm64') } });
    }
  });

  it('takes a sole entry without platform, but not a sole entry of another', () => {
    const { platform: _, ...bare } = entry('linux', 'amd64', '33');
    const sole = parseManifest(bytes({ ...index, manifests: [bare] }));
    const foreign = parseManifest(bytes({ ...index, manifests: [entry('linux', 'arm64', '44')] }));
    if (sole.kind !== 'index' || foreign.kind !== 'index') throw new Error('not an index');
    expect(selectPlatform(sole, { os: 'linux', architecture: 'amd64' }).digest).toBe(digest('33'));
    expect(() => selectPlatform(foreign, { os: 'linux', architecture: 'amd64' })).toThrow(
      'no manifest for this platform',
    );
  });
});
