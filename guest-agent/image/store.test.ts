import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { SealpodError } from '@sealpod/protocol/errors';
import { type RegistryProcess, registryProcessMissing, startRegistry } from '@sealpod/registry/testing';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createImageStore, type ImageStoreOptions, type OverlayMounter } from './index.ts';
import { pushTestImage, type TestLayer, tarOf } from './testing/test-image.ts';
import { describeTree } from './testing/tree.ts';

const missing = registryProcessMissing() ?? (process.getuid?.() === 0 ? undefined : 'unpacking with owners needs root');
const acceptAll = { text: '{"default":[{"type":"insecureAcceptAnything"}]}' };
const key = { id: 'kbs:///default/image-key/1', bytes: randomBytes(32) };

let registry: RegistryProcess;
let directory: string;
let counter = 0;

beforeAll(async () => {
  if (missing === undefined) registry = await startRegistry();
});
afterAll(() => registry?.stop());
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-store-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Shows what would be mounted by a link to the lower directory. */
const linkMounter: OverlayMounter = {
  async mount({ lower, target }) {
    rmSync(target, { recursive: true });
    symlinkSync(lower, target);
  },
  async unmount(target) {
    rmSync(target);
  },
};

function storeOf(options: Partial<ImageStoreOptions> = {}) {
  return createImageStore({
    workDirectory: join(directory, 'work'),
    imagePolicy: acceptAll,
    registries: [{ location: registry.host, insecure: true }],
    getResource: async () => key.bytes,
    mounter: linkMounter,
    ...options,
  });
}

async function push(layers: readonly TestLayer[]) {
  counter += 1;
  const name = `${registry.host}/image-${counter}:1`;
  return { name, digest: await pushTestImage(registry.host, `image-${counter}`, '1', layers) };
}

const bundle = (name = 'bundle') => join(directory, name);
const leftovers = () => readdirSync(join(directory, 'work', 'quarantine'));
const images = () => readdirSync(join(directory, 'work', 'images'));

const layer = async (entries: Parameters<typeof tarOf>[0], options: Partial<TestLayer> = {}): Promise<TestLayer> => ({
  archive: await tarOf(entries),
  ...options,
});

const text = (content: string) => [{ name: 'greeting', content }];

describe.skipIf(missing !== undefined)(`image store${missing === undefined ? '' : ` (${missing})`}`, () => {
  it('equals what skopeo and umoci unpack', async (context) => {
    for (const tool of ['skopeo', 'umoci']) {
      if (!existsSync(`/usr/bin/${tool}`)) context.skip(`${tool} is not installed`);
    }
    const long = `${'long-name-'.repeat(12)}/${'deeper-'.repeat(20)}`;
    const { name } = await push([
      await layer([
        { name: 'bin/', type: 'directory', mode: 0o755 },
        { name: 'bin/tool', content: 'tool', mode: 0o4755 },
        { name: 'bin/alias', type: 'link', linkname: 'bin/tool' },
        { name: 'sh', type: 'symlink', linkname: '/bin/tool', uid: 5, gid: 6 },
        { name: 'usr/lib/', type: 'directory', mode: 0o755 },
        { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
        { name: 'etc/', type: 'directory', mode: 0o750, uid: 7, gid: 8, mtime: new Date(1_500_000_000_000) },
        { name: 'etc/kept', content: 'kept', uid: 1000, gid: 1001 },
        { name: 'etc/gone', content: 'gone' },
        { name: 'etc/dir/', type: 'directory', mode: 0o700 },
        { name: 'etc/dir/inner', content: 'inner' },
        { name: 'opaque/', type: 'directory', mode: 0o755 },
        { name: 'opaque/old', content: 'old' },
        { name: 'file-then-dir', content: 'x' },
        { name: 'dir-then-file/', type: 'directory', mode: 0o755 },
        { name: 'dir-then-file/x', content: 'x' },
        { name: 'tmp/', type: 'directory', mode: 0o1777 },
        { name: 'ümlaut', content: 'u' },
        { name: long, content: 'long' },
      ]),
      await layer(
        [
          { name: 'etc/', type: 'directory', mode: 0o755, mtime: new Date(1_550_000_000_000) },
          { name: 'etc/.wh.gone', content: '' },
          { name: 'etc/.wh.dir', content: '' },
          { name: 'opaque/', type: 'directory', mode: 0o711 },
          { name: 'opaque/.wh..wh..opq', content: '' },
          { name: 'opaque/new', content: 'new' },
          { name: 'lib/through-link', content: 'library' },
          { name: 'file-then-dir/', type: 'directory', mode: 0o755 },
          { name: 'file-then-dir/y', content: 'y' },
          { name: 'dir-then-file', content: 'z' },
          { name: 'bin/tool', content: 'tool 2', mode: 0o755 },
        ],
        { compression: 'gzip' },
      ),
      await layer([
        { name: 'etc/dir/', type: 'directory', mode: 0o755 },
        { name: 'etc/dir/again', content: 'again' },
      ]),
    ]);
    const { rootfs, config } = await storeOf().pull(name, bundle());
    expect(config).toMatchObject({ environment: ['PATH=/bin'], command: ['/bin/true'] });
    const layout = `${join(directory, 'layout')}:1`;
    execFileSync('skopeo', [
      'copy',
      '--src-tls-verify=false',
      '--insecure-policy',
      `docker://${name}`,
      `oci:${layout}`,
    ]);
    execFileSync('umoci', ['unpack', '--image', layout, join(directory, 'umoci')]);
    const ours = describeTree(realpathSync(rootfs));
    const theirs = describeTree(join(directory, 'umoci', 'rootfs'));
    // Directories that no layer describes get the time of unpacking.
    for (const implied of ['', 'usr', long.split('/')[0] ?? '']) {
      delete ours[implied];
      delete theirs[implied];
    }
    expect(Object.keys(ours).length).toBeGreaterThan(17);
    expect(ours).toEqual(theirs);
  });

  it.each(['none', 'gzip', 'zstd'] as const)('pulls %s layers, plain and encrypted', async (compression) => {
    for (const encryption of [{}, { key }]) {
      const content = randomBytes(300_000);
      const { name, digest } = await push([
        await layer([{ name: 'a', content }], { compression, ...encryption }),
        await layer(text('hello'), { compression, ...encryption }),
      ]);
      const pulled = await storeOf().pull(name, bundle(`${compression}-${Object.keys(encryption).length}`));
      expect(pulled.manifestDigest).toBe(digest);
      expect(readFileSync(join(pulled.rootfs, 'a'))).toEqual(content);
      expect(readFileSync(join(pulled.rootfs, 'greeting'), 'utf8')).toBe('hello');
    }
    expect(leftovers()).toEqual([]);
  });

  it('reads zstd layers of many frames', async () => {
    const archive = await tarOf([{ name: 'a', content: randomBytes(200_000) }, ...text('second frame')]);
    const compressed = Buffer.concat([
      zstdCompressSync(archive.subarray(0, 100_000)),
      Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]),
      zstdCompressSync(archive.subarray(100_000)),
    ]);
    const { name } = await push([{ archive, compression: 'zstd', compressed }]);
    const { rootfs } = await storeOf().pull(name, bundle());
    expect(readFileSync(join(rootfs, 'greeting'), 'utf8')).toBe('second frame');
  });

  it('asks for the key once, however many layers it wraps', async () => {
    const { name } = await push(
      await Promise.all(['1', '2', '3', '4', '5'].map((content) => layer(text(content), { key }))),
    );
    const asked: string[] = [];
    const getResource = async (uri: string) => {
      asked.push(uri);
      return key.bytes;
    };
    await storeOf({ getResource }).pull(name, bundle());
    expect(asked).toEqual([key.id]);
  });

  it('lets the first unwrapping end before the others begin', async () => {
    const { name } = await push(await Promise.all(['1', '2', '3'].map((content) => layer(text(content), { key }))));
    const { createKeyUnwrapper } = await import('./layer-keys.ts');
    const unwrap = createKeyUnwrapper(async () => key.bytes);
    const events: string[] = [];
    const unwrapKey = async (packet: Uint8Array) => {
      events.push('begin');
      await new Promise((resolve) => setImmediate(resolve));
      const options = await unwrap(packet);
      events.push('end');
      return options;
    };
    await storeOf({ unwrapKey, maxConcurrentLayers: 3 }).pull(name, bundle());
    expect(events.slice(0, 2)).toEqual(['begin', 'end']);
    expect(events).toHaveLength(6);
  });

  const keyText = 'Failed to decrypt the image layer, please ensure that the decryption key is placed and correct';
  it('refuses a wrong key and leaves nothing behind', async () => {
    const { name } = await push([await layer(text('secret'), { key })]);
    await expect(storeOf({ getResource: async () => randomBytes(32) }).pull(name, bundle())).rejects.toMatchObject({
      code: 'IMG_DECRYPT_KEY',
      message: expect.stringMatching(new RegExp(`^Failed to pull image .*${keyText}`)),
    });
    expect(leftovers()).toEqual([]);
    expect(images()).toEqual([]);
    expect(existsSync(bundle())).toBe(false);
  });

  it('says the same where the key cannot be had, with the reason and its code', async () => {
    const { name } = await push([await layer(text('secret'), { key })]);
    const getResource = async () => {
      throw new SealpodError('KBS_UNREACHABLE', 'the broker says nothing');
    };
    await expect(storeOf({ getResource }).pull(name, bundle())).rejects.toMatchObject({
      code: 'KBS_UNREACHABLE',
      message: expect.stringContaining(`${keyText}: the broker says nothing`),
    });
  });

  it('refuses layers whose packets were exchanged', async () => {
    const layers = await Promise.all(['1', '2'].map((content) => layer(text(content), { key })));
    const annotations: unknown[] = [];
    await push(
      layers.map((each) => ({
        ...each,
        alter: (descriptor) => {
          annotations.push(descriptor.annotations);
          return descriptor;
        },
      })),
    );
    const [first] = annotations as Record<string, string>[];
    const name = 'org.opencontainers.image.enc.keys.provider.attestation-agent';
    const { name: image } = await push([
      {
        ...(layers[1] as TestLayer),
        alter: (descriptor) => ({
          ...descriptor,
          annotations: { ...descriptor.annotations, [name]: first?.[name] ?? '' },
        }),
      },
    ]);
    await expect(storeOf().pull(image, bundle())).rejects.toMatchObject({ code: 'IMG_DECRYPT_KEY' });
    expect(leftovers()).toEqual([]);
  });

  it('refuses content that is not what the configuration says', async () => {
    const { name } = await push([await layer(text('x'), { diffId: `sha256:${'0'.repeat(64)}` })]);
    await expect(storeOf().pull(name, bundle())).rejects.toMatchObject({ code: 'IMG_DIGEST' });
    expect(leftovers()).toEqual([]);
    expect(images()).toEqual([]);
  });

  it.each(['gzip', 'zstd', 'none'] as const)(
    'says IMG_DIGEST for a %s blob changed by a byte, wherever the byte is, and never shows it',
    async (compression) => {
      const archive = await tarOf([{ name: 'a', content: randomBytes(3000) }]);
      const { name, digest } = await push([{ archive, compression }]);
      const blobs = findBlobs(digest);
      const layerBlob = blobs.find((path) => readFileSync(path).length > 2500);
      if (layerBlob === undefined) throw new Error('no layer blob');
      const good = readFileSync(layerBlob);
      for (const at of [0, 11, 40, 1000, good.length - 5, good.length - 1]) {
        const bad = Buffer.from(good);
        bad.writeUInt8(bad.readUInt8(at) ^ 0x10, at);
        writeFileSync(layerBlob, bad);
        await expect(storeOf().pull(name, bundle())).rejects.toMatchObject({ code: 'IMG_DIGEST' });
      }
      expect(leftovers()).toEqual([]);
      expect(images()).toEqual([]);
    },
  );

  /** The blobs written last, without the manifest: layer and configuration. */
  function findBlobs(except: string): string[] {
    const blobs = join(registry.storage, 'docker', 'registry', 'v2', 'blobs', 'sha256');
    return readdirSync(blobs, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('/data') && !path.includes(except.slice('sha256:'.length)))
      .map((path) => join(blobs, path))
      .toSorted((left, right) => statSync(right).mtimeMs - statSync(left).mtimeMs)
      .slice(0, 2);
  }

  it('refuses a layer beyond the limits', async () => {
    const many = await layer(Array.from({ length: 20 }, (_, at) => ({ name: `f${at}`, content: 'x'.repeat(100) })));
    const { name } = await push([many]);
    const limits = { maxEntries: 19, maxBytes: 10_000 };
    await expect(storeOf({ limits }).pull(name, bundle())).rejects.toMatchObject({ code: 'IMG_UNPACK' });
    await expect(storeOf({ limits: { maxEntries: 100, maxBytes: 1999 } }).pull(name, bundle())).rejects.toMatchObject({
      code: 'IMG_UNPACK',
    });
    await storeOf({ limits: { maxEntries: 20, maxBytes: 2000 } }).pull(name, bundle());
  });

  it('G-03: refuses every image where no policy is set, without asking the network', async () => {
    const { imagePolicy: _, ...rest } = { imagePolicy: acceptAll };
    const store = createImageStore({
      workDirectory: join(directory, 'work'),
      registries: [{ location: '127.0.0.1:1', insecure: true }],
      getResource: async () => key.bytes,
      mounter: linkMounter,
      ...rest,
    });
    await expect(store.pull('127.0.0.1:1/app:1', bundle())).rejects.toMatchObject({
      code: 'IMG_POLICY_DENY',
      message: expect.stringMatching(/^Failed to pull image .*Image policy rejected: Denied by policy/),
    });
  });

  it('asks the policy again where the image is already here', async () => {
    const { name, digest } = await push([await layer(text('x'))]);
    const pinned = (allowed: string) => `{"default":[{"type":"digest","digests":["${allowed}"]}]}`;
    let policy = pinned(digest);
    const store = storeOf({
      imagePolicy: { uri: 'kbs:///default/security-policy/test' },
      getResource: async () => Buffer.from(policy),
    });
    await store.pull(name, bundle('1'));
    policy = pinned(`sha256:${'1'.repeat(64)}`);
    await expect(store.pull(name, bundle('2'))).rejects.toMatchObject({ code: 'IMG_POLICY_DENY' });
    policy = '{"default":[]}';
    await expect(store.pull(name, bundle('3'))).rejects.toMatchObject({ code: 'IMG_POLICY_DENY' });
    policy = '{"default":';
    await expect(store.pull(name, bundle('4'))).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    expect(images()).toHaveLength(1);
  });

  it('shares the work of pulls at the same time, and starts again after a failure', async () => {
    const { name } = await push([await layer(text('shared'), { key })]);
    let fail = true;
    let asked = 0;
    const getResource = async () => {
      asked += 1;
      if (fail) throw new Error('not yet');
      return key.bytes;
    };
    const store = storeOf({ getResource });
    await expect(store.pull(name, bundle('0'))).rejects.toMatchObject({ code: 'IMG_DECRYPT_KEY' });
    fail = false;
    asked = 0;
    const pulled = await Promise.all(['1', '2', '3'].map((each) => store.pull(name, bundle(each))));
    expect(asked).toBe(1);
    expect(new Set(pulled.map(({ rootfs }) => rootfs)).size).toBe(3);
    expect(images()).toHaveLength(1);
  });

  it('goes on for those who wait when another gives up', async () => {
    const { name } = await push([await layer(text('shared'), { key })]);
    const gate = Promise.withResolvers<void>();
    const waiting = Promise.withResolvers<void>();
    const getResource = async () => {
      waiting.resolve();
      await gate.promise;
      return key.bytes;
    };
    const store = storeOf({ getResource });
    const abort = new AbortController();
    const given = store.pull(name, bundle('1'), abort.signal);
    const kept = store.pull(name, bundle('2'));
    const outcome = expect(given).rejects.toMatchObject({ message: expect.stringMatching(/^Failed to pull image/) });
    await waiting.promise;
    abort.abort();
    await outcome;
    gate.resolve();
    expect(readFileSync(join((await kept).rootfs, 'greeting'), 'utf8')).toBe('shared');
  });

  it('says Not authorized where the registry refuses, and Failed to pull image for anything', async () => {
    const begins = { message: expect.stringMatching(/^Failed to pull image/) };
    await expect(storeOf().pull(`${registry.host}/none:1`, bundle())).rejects.toMatchObject({
      ...begins,
      code: 'IMG_REGISTRY',
    });
    await expect(storeOf().pull('../..', bundle())).rejects.toMatchObject({ ...begins, code: 'IMG_FORMAT' });
    await expect(storeOf({ registries: [] }).pull(`${registry.host}/none:1`, bundle())).rejects.toMatchObject({
      ...begins,
      code: 'IMG_REGISTRY',
    });
  });

  it('removes what an earlier process left in quarantine', async () => {
    mkdirSync(join(directory, 'work', 'quarantine', 'image-old', 'layer-0'), { recursive: true });
    const { name } = await push([await layer(text('x'))]);
    await storeOf().pull(name, bundle());
    expect(leftovers()).toEqual([]);
  });

  it('mounts a writable root file system for each container and takes it away', async (context) => {
    const { name } = await push([await layer(text('lower'))]);
    const store = createImageStore({
      workDirectory: join('/dev/shm', `sealpod-${process.pid}`),
      imagePolicy: acceptAll,
      registries: [{ location: registry.host, insecure: true }],
      getResource: async () => key.bytes,
    });
    try {
      const { rootfs } = await store.pull(name, bundle()).catch((error: Error) => {
        if (/permission|not permitted|unknown filesystem/i.test(error.message))
          context.skip(`no overlayfs here: ${error.message}`);
        throw error;
      });
      writeFileSync(join(rootfs, 'greeting'), 'upper');
      const other = await store.pull(name, bundle('other'));
      expect(readFileSync(join(other.rootfs, 'greeting'), 'utf8')).toBe('lower');
      await expect(store.pull(name, bundle())).rejects.toMatchObject({ code: 'IMG_UNPACK' });
      await store.release(bundle());
      await store.release(bundle('other'));
      expect(readdirSync(rootfs)).toEqual([]);
      expect(readdirSync(join('/dev/shm', `sealpod-${process.pid}`, 'containers'))).toEqual([]);
    } finally {
      rmSync(join('/dev/shm', `sealpod-${process.pid}`), { recursive: true, force: true });
    }
  });
});
