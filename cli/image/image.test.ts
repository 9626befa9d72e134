import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createImageStore } from '@sealpod/guest-agent/image';
import { parseReference, RegistryClient } from '@sealpod/registry';
import { type RegistryProcess, registryProcessMissing, startRegistry } from '@sealpod/registry/testing';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { buildImage, encryptImage, type ImageEntry, parseImageLocation, pushImage } from './index.ts';

const keyId = 'kbs:///default/image-key/1';
const entries: readonly ImageEntry[] = [
  { path: 'etc', type: 'directory' },
  { path: 'etc/greeting', type: 'file', content: Buffer.from('hello') },
  { path: 'bin/tool', type: 'file', mode: 0o755, content: randomBytes(200_000) },
  { path: 'sh', type: 'symlink', target: 'bin/tool' },
];
const imageProcess = { command: ['/sh'], environment: ['PATH=/bin'], workingDirectory: '/', user: '1000' };

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-image-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const build = (name = 'layout', root: Parameters<typeof buildImage>[0]['root'] = entries) =>
  buildImage({ root, process: imageProcess, output: join(directory, name), tag: '1' });

describe('buildImage', () => {
  it('gives equal bytes for equal input, in any order', async () => {
    const first = await build('1');
    const second = await build('2', entries.toReversed());
    expect(second).toEqual(first);
    const files = (name: string) => readdirSync(join(directory, name, 'blobs', 'sha256')).sort();
    expect(files('1')).toEqual(files('2'));
    expect(files('1')).toHaveLength(3);
  });

  it('takes files, links and modes from a directory', async () => {
    const root = join(directory, 'root');
    mkdirSync(join(root, 'etc'), { recursive: true });
    writeFileSync(join(root, 'etc', 'greeting'), 'hello', { mode: 0o600 });
    symlinkSync('etc/greeting', join(root, 'link'));
    await build('from-directory', { directory: root });
    const same: ImageEntry[] = [
      { path: 'etc', type: 'directory', mode: 0o755 },
      { path: 'etc/greeting', type: 'file', mode: 0o600, content: Buffer.from('hello') },
      { path: 'link', type: 'symlink', target: 'etc/greeting' },
    ];
    expect(await build('again', { directory: root })).toEqual(await build('same', same));
  });

  it.each(['../x', '/', 'a/../b'])('refuses the path %s', async (path) => {
    await expect(build('bad', [{ path, type: 'directory' }])).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('builds what umoci can unpack', async (context) => {
    if (!existsSync('/usr/bin/umoci')) context.skip('umoci is not installed');
    if (process.getuid?.() !== 0) context.skip('umoci unpack needs root');
    await build();
    execFileSync('umoci', ['unpack', '--image', `${join(directory, 'layout')}:1`, join(directory, 'bundle')]);
    expect(readFileSync(join(directory, 'bundle', 'rootfs', 'etc', 'greeting'), 'utf8')).toBe('hello');
    const spec = JSON.parse(readFileSync(join(directory, 'bundle', 'config.json'), 'utf8'));
    expect(spec.process).toMatchObject({ args: ['/sh'], cwd: '/', user: { uid: 1000 } });
  });
});

describe('parseImageLocation', () => {
  it('reads layouts, archives and references', () => {
    expect(parseImageLocation('oci:/a/b')).toEqual({ kind: 'layout', directory: '/a/b' });
    expect(parseImageLocation('oci:/a/b:1.0')).toEqual({ kind: 'layout', directory: '/a/b', tag: '1.0' });
    expect(parseImageLocation('oci-archive:x.tar:1')).toEqual({ kind: 'archive', file: 'x.tar', tag: '1' });
    expect(parseImageLocation('a.example/b:1')).toEqual({
      kind: 'registry',
      reference: parseReference('a.example/b:1'),
    });
    expect(() => parseImageLocation('a.example/B')).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
  });
});

const missing = registryProcessMissing();
describe.skipIf(missing !== undefined)(`encryptImage${missing === undefined ? '' : ` (${missing})`}`, () => {
  let registry: RegistryProcess;
  beforeAll(async () => {
    registry = await startRegistry();
  });
  afterAll(() => registry?.stop());

  const access = () => ({ plainHttpHosts: new Set([registry.host]) });
  const encrypt = (source: string, keyEncryptionKey: Uint8Array, tag = '1') =>
    encryptImage({
      ...access(),
      source: parseImageLocation(source),
      destination: parseReference(`${registry.host}/encrypted:${tag}`),
      keyId,
      keyEncryptionKey,
    });

  async function pushed(reference: string): Promise<Record<string, unknown>> {
    const { registry: host, repository, tag = '' } = parseReference(reference);
    const client = new RegistryClient({ registry: host, ...access() });
    try {
      return JSON.parse((await client.fetchManifest(repository, tag)).bytes.toString());
    } finally {
      client.close();
    }
  }

  async function blob(reference: string, descriptor: unknown): Promise<Buffer> {
    const { registry: host, repository } = parseReference(reference);
    const client = new RegistryClient({ registry: host, ...access() });
    try {
      return await client.fetchBlob(repository, descriptor as { digest: string; size: number }, 1 << 20);
    } finally {
      client.close();
    }
  }

  it('pushes what skopeo’s key provider output looks like, from layout, archive and registry alike', async () => {
    const plain = await build();
    const layout = join(directory, 'layout');
    execFileSync('tar', ['-C', layout, '-cf', join(directory, 'image.tar'), '.']);
    const copied = parseReference(`${registry.host}/plain:1`);
    const digest = await pushImage({ ...access(), source: parseImageLocation(`oci:${layout}:1`), destination: copied });
    expect(digest).toBe(plain.digest);
    const plainManifest = await pushed(`${registry.host}/plain:1`);
    const ids = new Set([(plainManifest['config'] as { digest: string }).digest]);
    for (const source of [
      `oci:${layout}`,
      `oci-archive:${join(directory, 'image.tar')}:1`,
      `${registry.host}/plain:1`,
    ]) {
      const encrypted = await encrypt(source, randomBytes(32));
      expect(encrypted.keyId).toBe(keyId);
      const manifest = await pushed(`${registry.host}/encrypted:1`);
      expect(manifest).toMatchObject({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        layers: [
          {
            mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted',
            size: (plainManifest['layers'] as { size: number }[])[0]?.size,
            annotations: {
              'org.opencontainers.image.enc.keys.provider.attestation-agent':
                expect.stringMatching(/^[A-Za-z0-9+/]+=*$/),
              'org.opencontainers.image.enc.pubopts': expect.stringMatching(/^[A-Za-z0-9+/]+=*$/),
            },
          },
        ],
      });
      // Each has an image id of its own, and the configuration says the same but for one member.
      const { digest: id, size } = manifest['config'] as { digest: string; size: number };
      expect(id).toBe(encrypted.configDigest);
      expect(ids).not.toContain(id);
      ids.add(id);
      const config = JSON.parse((await blob(`${registry.host}/encrypted:1`, { digest: id, size })).toString());
      const { 'io.sealpod.encrypted-layers': mark, ...rest } = config;
      expect(mark).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect(rest).toEqual(JSON.parse((await blob(`${registry.host}/plain:1`, plainManifest['config'])).toString()));
      await expect(encrypt(`${registry.host}/encrypted:1`, randomBytes(32))).rejects.toMatchObject({
        code: 'IMG_FORMAT',
      });
    }
  });

  it('is pulled by the guest with the key and not without', async (context) => {
    if (process.getuid?.() !== 0) context.skip('unpacking with owners needs root');
    await build();
    const key = randomBytes(32);
    const { manifestDigest, configDigest } = await encrypt(`oci:${join(directory, 'layout')}`, key, 'pulled');
    const pull = (getResource: () => Promise<Uint8Array>) =>
      createImageStore({
        workDirectory: join(directory, 'work'),
        imagePolicy: { text: JSON.stringify({ default: [{ type: 'digest', digests: [manifestDigest] }] }) },
        registries: [{ location: registry.host, insecure: true }],
        getResource,
        mounter: {
          mount: async ({ lower, target }) => {
            rmSync(target, { recursive: true });
            symlinkSync(lower, target);
          },
          unmount: async (target) => rmSync(target),
        },
      }).pull(`${registry.host}/encrypted:pulled`, join(directory, 'bundle'));
    await expect(pull(async () => randomBytes(32))).rejects.toMatchObject({ code: 'IMG_DECRYPT_KEY' });
    const image = await pull(async () => key);
    expect(image).toMatchObject({ manifestDigest, configDigest, config: { command: ['/sh'], user: '1000' } });
    expect(readFileSync(join(realpathSync(image.rootfs), 'etc/greeting'), 'utf8')).toBe('hello');
  });

  it('refuses bad keys, key ids and destinations before anything is pushed', async () => {
    await build();
    const source = `oci:${join(directory, 'layout')}`;
    await expect(encrypt(source, randomBytes(31), 'none')).rejects.toMatchObject({ code: 'IMG_DECRYPT_KEY' });
    const options = { ...access(), source: parseImageLocation(source), keyEncryptionKey: randomBytes(32) };
    const destination = parseReference(`${registry.host}/encrypted:none`);
    await expect(encryptImage({ ...options, destination, keyId: 'default/key/1' })).rejects.toMatchObject({
      code: 'RES_NAME',
    });
    const byDigest = parseReference(`${registry.host}/encrypted@sha256:${'a'.repeat(64)}`);
    await expect(encryptImage({ ...options, destination: byDigest, keyId })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(pushed(`${registry.host}/encrypted:none`)).rejects.toMatchObject({ code: 'IMG_REGISTRY' });
  });

  it('notices a damaged source and pushes no manifest', async () => {
    await build();
    const blobs = join(directory, 'layout', 'blobs', 'sha256');
    const layer = readdirSync(blobs).find((name) => readFileSync(join(blobs, name)).length > 100_000) ?? '';
    const bytes = readFileSync(join(blobs, layer));
    bytes.writeUInt8(bytes.readUInt8(5000) ^ 1, 5000);
    writeFileSync(join(blobs, layer), bytes);
    await expect(encrypt(`oci:${join(directory, 'layout')}`, randomBytes(32), 'damaged')).rejects.toMatchObject({
      code: 'IMG_DIGEST',
    });
    await expect(pushed(`${registry.host}/encrypted:damaged`)).rejects.toMatchObject({ code: 'IMG_REGISTRY' });
    await expect(encrypt(`oci:${join(directory, 'nothing')}`, randomBytes(32))).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(createHash('sha256').update(bytes).digest('hex')).not.toBe(layer);
  });
});
