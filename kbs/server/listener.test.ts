import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { call } from '../testing/client.ts';
import { startTestKbs, type TestKbs } from '../testing/kbs.ts';

/** The machine may be busy. */
const patience = { timeout: 20_000 };

let kbs: TestKbs;
afterEach(() => kbs.remove());

/** Sends bytes as they are and returns all that comes back until the server closes. */
function raw(text: string | Buffer, keepOpen = false): Promise<string> {
  const { port } = new URL(kbs.address);
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(Number(port), '127.0.0.1', () => {
      if (keepOpen) socket.write(text);
      else socket.end(text);
    });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')));
  });
}

const request = '{"version":"0.4.0","tee":"sample","extra-params":""}';
const mib = 1024 * 1024;

/** A request to `/auth` of exactly so many bytes. */
function padded(bytes: number): string {
  const frame = '{"version":"0.4.0","tee":"sample","extra-params":"","pad":""}';
  return frame.replace('"pad":""', `"pad":"${'x'.repeat(bytes - frame.length)}"`);
}

describe('limits', () => {
  it('a body of 2 MiB is read, one byte more is refused', async () => {
    kbs = await startTestKbs();
    const put = (length: number) => kbs.admin('/kbs/v0/resource/a/b/c', { method: 'POST', body: Buffer.alloc(length) });
    expect((await put(2 * mib)).status).toBe(200);
    const reply = await put(2 * mib + 1);
    expect(reply.status).toBe(413);
    expect(reply.text).toBe('payload reached size limit');
    expect(reply.headers['content-type']).toBe('text/plain; charset=utf-8');
    expect(reply.headers['connection']).toBe('close');
  });

  it('a chunked body is refused as soon as it is too long', async () => {
    kbs = await startTestKbs();
    const chunk = `${mib.toString(16)}\r\n${'x'.repeat(mib)}\r\n`;
    const head = 'POST /kbs/v0/attest HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n';
    const answer = await raw(head + chunk.repeat(3), true);
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    expect(answer).toContain('connection: close');
  });

  it('a request of auth is small, whatever the body limit is', async () => {
    kbs = await startTestKbs();
    const reply = await call(kbs.address, '/kbs/v0/auth', { method: 'POST', body: padded(300 * 1024) });
    expect(reply.status).toBe(401);
    expect(reply.json()).toMatchObject({ code: 'REQUEST_TOO_LARGE' });
  });

  it('a head of more than 128 KiB or 96 headers is refused', async () => {
    kbs = await startTestKbs();
    const head = (size: number) =>
      `GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: ${'y'.repeat(size)}\r\n\r\n`;
    expect(await raw(head(120 * 1024))).toMatch(/^HTTP\/1\.1 200 /);
    expect(await raw(head(129 * 1024))).toMatch(/^HTTP\/1\.1 431 /);
    const headers = (count: number) =>
      `GET /healthz HTTP/1.1\r\n${'a: b\r\n'.repeat(count - 1)}connection: close\r\n\r\n`;
    expect(await raw(headers(96))).toMatch(/^HTTP\/1\.1 200 /);
    expect(await raw(headers(97))).toMatch(/^HTTP\/1\.1 431 /);
  });

  it('too many requests of one address are refused, and taken again later', async () => {
    let now = Date.now();
    kbs = await startTestKbs({ limits: { perAddress: { perSecond: 1, burst: 3 } } }, { now: () => now });
    const statuses: number[] = [];
    for (let index = 0; index < 5; index += 1) statuses.push((await call(kbs.address, '/healthz')).status);
    expect(statuses).toEqual([200, 200, 200, 429, 429]);
    const refused = await call(kbs.address, '/kbs/v0/auth', { method: 'POST', body: request });
    expect(refused.headers['retry-after']).toBe('1');
    expect(refused.json()).toMatchObject({ code: 'RATE_LIMIT' });
    now += 1000;
    expect((await call(kbs.address, '/healthz')).status).toBe(200);
  });

  it('a client that sends its head or body too slowly is cut off', async () => {
    kbs = await startTestKbs({ limits: { headTimeoutMs: 200, requestTimeoutMs: 400 } });
    const slowHead = raw('GET /healthz HTTP/1.1\r\nhost: a\r\nx', true);
    const slowBody = raw('POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{', true);
    expect(await slowHead).toMatch(/^(HTTP\/1\.1 408 |$)/);
    expect(await slowBody).toMatch(/^(HTTP\/1\.1 408 |$)/);
    expect((await call(kbs.address, '/healthz')).status).toBe(200);
  });

  it('connections beyond the limit are closed', async () => {
    kbs = await startTestKbs({ limits: { maxConnections: 2 } });
    const { port } = new URL(kbs.address);
    const open = [0, 1].map(() => connect(Number(port), '127.0.0.1'));
    await Promise.all(open.map((socket) => new Promise((resolve) => socket.once('connect', resolve))));
    await expect
      .poll(
        () =>
          call(kbs.address, '/healthz').then(
            () => 'answered',
            () => 'closed',
          ),
        patience,
      )
      .toBe('closed');
    for (const socket of open) socket.destroy();
    await expect
      .poll(
        () =>
          call(kbs.address, '/healthz').then(
            ({ status }) => status,
            () => 0,
          ),
        patience,
      )
      .toBe(200);
  });
});

describe('requests', () => {
  it.each([
    ['a malformed length', 'POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\ncontent-length: abc\r\n\r\n', 400],
    [
      'length and encoding at once',
      'POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['no protocol', 'HELLO\r\n\r\n', 400],
    ['a target that is no URI', 'GET /kbs/v0/<x> HTTP/1.1\r\nhost: a\r\n\r\n', 400],
    ['bytes outside of ASCII in the target', 'GET /kbs/v0/\xc3\xa9 HTTP/1.1\r\nhost: a\r\n\r\n', 400],
    ['an asterisk', 'OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n', 404],
    ['two slashes before kbs', 'GET //kbs/v0/auth HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n', 404],
    ['HTTP/1.0', 'GET /healthz HTTP/1.0\r\n\r\n', 200],
    ['PATCH below kbs', 'PATCH /kbs/v0/auth HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n', 405],
  ])('%s: %#', async (_name, text, status) => {
    kbs = await startTestKbs();
    expect(await raw(Buffer.from(text, 'latin1'))).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  });

  it('that are pipelined are answered in order, one that is refused does not desynchronise', async () => {
    kbs = await startTestKbs();
    const auth = `POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\ncontent-length: ${request.length}\r\n\r\n${request}`;
    const unknown = 'POST /kbs/v0/nope HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nGET /';
    const last = 'GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n';
    const statuses = (await raw(auth + unknown + auth + last)).match(/HTTP\/1\.1 \d+/g);
    expect(statuses?.slice(0, 2)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 404']);
    expect(statuses?.slice(2)).not.toContain('HTTP/1.1 400');
  });

  it('every answer below kbs carries a correlation id and is not cached', async () => {
    kbs = await startTestKbs();
    for (const target of ['/kbs/v0/nope', '/kbs/v0/resource/a/b/c', '/admin/v1/status']) {
      const reply = await call(kbs.address, target);
      expect(reply.headers['x-correlation-id']).toMatch(/^[0-9a-f-]{36}$/);
      expect(reply.headers['cache-control']).toBe('no-store');
    }
  });
});
