import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { KbsClient } from './client.ts';

it.each(['http://192.0.2.1:8080', 'http://kbs.example', 'http://127.0.0.1.attacker.example'])(
  'G-12: no administrator token goes in the clear to %s, and none is made',
  async (url) => {
    let made = 0;
    const client = new KbsClient({ url, token: async () => `token ${++made}` });
    await expect(client.get('/admin/v1/status')).rejects.toMatchObject({ code: 'USAGE' });
    expect(made).toBe(0);
  },
);

it('a key broker without TLS on this machine is spoken to', async () => {
  const server = createServer((request, response) => response.end(JSON.stringify(request.headers.authorization)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const client = new KbsClient({ url: `http://127.0.0.1:${port}`, token: async () => 'token' });
  expect(await client.get('/admin/v1/status')).toBe('Bearer token');
  await new Promise((resolve) => server.close(resolve));
});
