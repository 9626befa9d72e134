import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parseChallenges } from './authentication.ts';
import { RegistryClient, type RegistryClientOptions } from './client.ts';
import { mediaTypes } from './manifest.ts';
import { type RegistryProcess, registryProcessMissing, startRegistry } from './testing/registry-process.ts';

const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const content = randomBytes(300_000);
const blob = { digest: sha256(content), size: content.length };

const clients: RegistryClient[] = [];
const servers: Server[] = [];

function clientOf(host: string, options: Partial<RegistryClientOptions> = {}): RegistryClient {
  const client = new RegistryClient({
    registry: host,
    plainHttpHosts: new Set([host]),
    retryDelayMs: 1,
    ...options,
  });
  clients.push(client);
  return client;
}

/** A server of the test's own; `handler` sees requests in order. */
async function serve(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(handler).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return `127.0.0.1:${address.port}`;
}

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

describe('with a real registry', () => {
  let registry: RegistryProcess;
  const missing = registryProcessMissing();
  beforeAll(async () => {
    if (missing === undefined) registry = await startRegistry();
  });
  afterAll(() => registry?.stop());

  it('uploads, finds and downloads', async (context) => {
    if (missing !== undefined) context.skip(missing);
    const client = clientOf(registry.host);
    await client.ping();
    expect(await client.hasBlob('a/b', blob.digest)).toBe(false);
    const upload = () => ({
      source: Readable.from([content.subarray(0, 1000), content.subarray(1000)]),
      digest: () => blob.digest,
    });
    expect(await client.uploadBlob('a/b', upload())).toBe(blob.digest);
    expect(await client.hasBlob('a/b', blob.digest)).toBe(true);
    expect(await buffer(client.openBlob('a/b', blob))).toEqual(content);
    const config = Buffer.from('{}');
    await client.uploadBlob('c', upload());
    await client.uploadBlob('c', { source: Readable.from([config]), digest: () => sha256(config) });
    const bytes = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: { mediaType: mediaTypes.ociConfig, digest: sha256(config), size: 2 },
        layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', ...blob }],
      }),
    );
    const digest = await client.putManifest('c', '1', { mediaType: mediaTypes.ociManifest, bytes });
    const fetched = { bytes, digest, mediaType: mediaTypes.ociManifest };
    expect(await client.fetchManifest('c', '1')).toEqual(fetched);
    expect(await client.fetchManifest('c', digest)).toEqual(fetched);
    await expect(client.fetchManifest('c', '2')).rejects.toMatchObject({ code: 'IMG_REGISTRY' });
    await expect(client.fetchBlob('c', blob, 1000)).rejects.toMatchObject({ code: 'IMG_REGISTRY' });
  });

  it('refuses an upload whose bytes have another digest', async (context) => {
    if (missing !== undefined) context.skip(missing);
    const upload = { source: Readable.from([Buffer.from('x')]), digest: () => blob.digest };
    await expect(clientOf(registry.host).uploadBlob('bad', upload)).rejects.toMatchObject({ code: 'IMG_REGISTRY' });
  });

  it('speaks no plain HTTP to a host that was not allowed', async (context) => {
    if (missing !== undefined) context.skip(missing);
    const client = clientOf(registry.host, { plainHttpHosts: new Set(), maxAttempts: 1 });
    await expect(client.ping()).rejects.toMatchObject({ code: 'IMG_REGISTRY' });
  });
});

describe('with a real registry that asks for a password', () => {
  let registry: RegistryProcess;
  const missing = registryProcessMissing();
  beforeAll(async () => {
    const htpasswd = 'user:$2b$04$0r7eK/okjdKCFMZmo817B.H3O9ruwX8KpTLEYpiwm2bCxr1ZSBR5u\n';
    if (missing === undefined) registry = await startRegistry({ htpasswd });
  });
  afterAll(() => registry?.stop());

  it('takes the right one and says Not authorized to none and a wrong one', async (context) => {
    if (missing !== undefined) context.skip(missing);
    await clientOf(registry.host, { credentials: { username: 'user', password: 'secret' } }).ping();
    const refusal = { code: 'IMG_AUTH', message: expect.stringContaining('Not authorized') };
    await expect(clientOf(registry.host).ping()).rejects.toMatchObject(refusal);
    const wrong = clientOf(registry.host, { credentials: { username: 'user', password: 'wrong' } });
    await expect(wrong.ping()).rejects.toMatchObject(refusal);
  });
});

describe('bearer tokens', () => {
  it('fetches one token for requests that were challenged together', async () => {
    let tokens = 0;
    const seen: (string | undefined)[] = [];
    const host = await serve((request, response) => {
      const url = new URL(request.url ?? '', 'http://x');
      if (url.pathname === '/token') {
        tokens++;
        seen.push(
          request.headers.authorization,
          url.searchParams.get('scope') ?? '',
          url.searchParams.get('service') ?? '',
        );
        response.end(JSON.stringify({ token: 'good', expires_in: 300 }));
      } else if (request.headers.authorization === 'Bearer good') {
        response.end(content);
      } else {
        const challenge = `Bearer realm="http://${request.headers.host}/token",service="s",scope="repository:r:pull"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
    });
    const client = clientOf(host, { credentials: { username: 'user', password: 'secret' } });
    const all = await Promise.all([1, 2, 3].map(() => buffer(client.openBlob('r', blob))));
    expect(all.every((bytes) => bytes.equals(content))).toBe(true);
    expect(await buffer(client.openBlob('r', blob))).toEqual(content);
    expect(tokens).toBe(1);
    expect(seen).toEqual([`Basic ${Buffer.from('user:secret').toString('base64')}`, 'repository:r:pull', 's']);
  });

  it('sends credentials to no token server without TLS that was not allowed', async () => {
    let asked = false;
    const tokenHost = await serve((_request, response) => {
      asked = true;
      response.end('{"token":"t"}');
    });
    const host = await serve((_request, response) => {
      response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${tokenHost}/"` }).end();
    });
    const client = clientOf(host, { credentials: { username: 'user', password: 'secret' } });
    await expect(client.fetchManifest('r', 'latest')).rejects.toMatchObject({ code: 'IMG_AUTH' });
    expect(asked).toBe(false);
  });

  it('parses challenges as RFC 9110 writes them', () => {
    expect(parseChallenges('Basic realm="a \\"b\\"", Bearer realm="https://t/x",service=s , scope="a,b"')).toEqual([
      { scheme: 'basic', parameters: { realm: 'a "b"' } },
      { scheme: 'bearer', parameters: { realm: 'https://t/x', service: 's', scope: 'a,b' } },
    ]);
    expect(parseChallenges('')).toEqual([]);
    expect(parseChallenges('Bearer')).toEqual([{ scheme: 'bearer', parameters: {} }]);
  });
});

describe('blobs', () => {
  it('resumes where a connection breaks, again and again', async () => {
    const ranges: (string | undefined)[] = [];
    const host = await serve((request, response) => {
      ranges.push(request.headers.range);
      const offset = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const headers = { 'content-length': `${content.length - offset}` };
      if (offset === 0) response.writeHead(200, headers);
      else
        response.writeHead(206, {
          ...headers,
          'content-range': `bytes ${offset}-${content.length - 1}/${content.length}`,
        });
      response.write(content.subarray(offset, offset + 100_000), () => {
        if (offset + 100_000 < content.length) response.destroy();
        else response.end();
      });
    });
    expect(await buffer(clientOf(host).openBlob('r', blob))).toEqual(content);
    expect(ranges.length).toBeGreaterThan(2);
    expect(ranges[0]).toBeUndefined();
    expect(ranges[1]).toMatch(/^bytes=\d+-$/);
  });

  it('skips what it has where the registry knows no ranges', async () => {
    let requests = 0;
    const host = await serve((_request, response) => {
      requests++;
      response.writeHead(200, { 'content-length': `${content.length}` });
      if (requests === 1) response.write(content.subarray(0, 70_000), () => response.destroy());
      else response.end(content);
    });
    expect(await buffer(clientOf(host).openBlob('r', blob))).toEqual(content);
    expect(requests).toBe(2);
  });

  it('refuses a range other than asked for', async () => {
    let requests = 0;
    const host = await serve((_request, response) => {
      if (requests++ === 0) {
        response.writeHead(200, { 'content-length': `${content.length}` });
        response.write(content.subarray(0, 10), () => response.destroy());
      } else response.writeHead(206, { 'content-range': 'bytes 0-9/300000' }).end(content.subarray(0, 10));
    });
    await expect(buffer(clientOf(host).openBlob('r', blob))).rejects.toMatchObject({
      code: 'IMG_REGISTRY',
      message: expect.stringContaining('another range'),
    });
  });

  it('gives up a connection that always breaks, after as many tries as allowed', async () => {
    let requests = 0;
    const host = await serve((request) => {
      requests++;
      request.socket.destroy();
    });
    await expect(buffer(clientOf(host, { maxAttempts: 3 }).openBlob('r', blob))).rejects.toMatchObject({
      code: 'IMG_REGISTRY',
    });
    expect(requests).toBeGreaterThanOrEqual(3);
    expect(requests).toBeLessThanOrEqual(9);
  });

  it.each([
    ['a changed byte', Buffer.concat([content.subarray(0, -1), Buffer.from([content.at(-1) === 0 ? 1 : 0])])],
    ['more bytes', Buffer.concat([content, Buffer.from([0])])],
  ])('refuses %s with IMG_DIGEST, without asking again', async (_name, bytes) => {
    let requests = 0;
    const host = await serve((_request, response) => {
      requests++;
      response.end(bytes);
    });
    await expect(buffer(clientOf(host).openBlob('r', blob))).rejects.toMatchObject({ code: 'IMG_DIGEST' });
    expect(requests).toBe(1);
  });

  it('refuses a manifest that has not the digest it was asked for by', async () => {
    const host = await serve((_request, response) => response.end('{}'));
    await expect(clientOf(host).fetchManifest('r', blob.digest)).rejects.toMatchObject({ code: 'IMG_DIGEST' });
  });

  it('fails a silent connection after the idle limit', async () => {
    const host = await serve(() => undefined);
    const client = clientOf(host, { idleTimeoutMs: 30, maxAttempts: 1 });
    await expect(client.fetchManifest('r', 'latest')).rejects.toMatchObject({
      code: 'IMG_REGISTRY',
      message: expect.stringContaining('no byte for 30 ms'),
    });
  });

  it('stops when its caller does', async () => {
    const abort = new AbortController();
    const host = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': `${content.length}` });
      response.write(content.subarray(0, 1000), () => abort.abort());
    });
    await expect(buffer(clientOf(host).openBlob('r', blob, abort.signal))).rejects.toThrow();
  });
});

describe('redirects and temporary failures', () => {
  it('follows to another host without the credentials', async () => {
    let authorization: string | undefined = 'not asked';
    const storage = await serve((request, response) => {
      authorization = request.headers.authorization;
      response.end(content);
    });
    const host = await serve((request, response) => {
      if (request.headers.authorization === undefined) response.writeHead(401, { 'www-authenticate': 'Basic' }).end();
      else response.writeHead(307, { location: `http://${storage}/blob` }).end();
    });
    const client = clientOf(host, {
      plainHttpHosts: new Set([host, storage]),
      credentials: { username: 'user', password: 'secret' },
    });
    expect(await buffer(client.openBlob('r', blob))).toEqual(content);
    expect(authorization).toBeUndefined();
  });

  it('follows to no host without TLS that was not allowed, and not for ever', async () => {
    const storage = await serve((_request, response) => response.end(content));
    const host = await serve((request, response) => {
      const location = request.url?.includes('loop') ? request.url : `http://${storage}/blob`;
      response.writeHead(307, { location }).end();
    });
    const client = clientOf(host, { maxAttempts: 1 });
    await expect(buffer(client.openBlob('r', blob))).rejects.toMatchObject({ code: 'IMG_REGISTRY' });
    await expect(client.fetchManifest('loop', '1')).rejects.toThrow('redirects more than');
  });

  it('tries again after 503 and 429', async () => {
    const statuses = [503, 429, 200];
    const host = await serve((_request, response) => response.writeHead(statuses.shift() ?? 500).end('{}'));
    expect((await clientOf(host).fetchManifest('r', '1')).bytes.toString()).toBe('{}');
    expect(statuses).toEqual([]);
  });

  it('says 403 as Not authorized', async () => {
    const host = await serve((_request, response) => response.writeHead(403).end());
    await expect(clientOf(host).fetchManifest('r', '1')).rejects.toMatchObject({
      code: 'IMG_AUTH',
      message: expect.stringContaining('Not authorized'),
    });
  });
});
