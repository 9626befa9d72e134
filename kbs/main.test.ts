import { X509Certificate } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { startAttestationService } from '@sealpod/attestation-service/start';
import { afterEach, describe, expect, it } from 'vitest';
import { createSelfSigned } from './server/tls.ts';
import { attest, authenticate, call, opened } from './testing/client.ts';
import { createKbsHome, type KbsHome, type KbsProcess } from './testing/process.ts';

/** The machine may be busy. */
const patience = { timeout: 20_000 };

let home: KbsHome;
afterEach(() => home.remove());

const resource = '/kbs/v0/resource/default/key/1';
const openPolicy = 'package policy\nimport rego.v1\nallow if data.plugin == "resource"';

/** Stores a secret that any attested guest may have: `sample` evidence is never affirming. */
async function provide({ address, certificatePath }: KbsProcess): Promise<void> {
  const ca = certificatePath === undefined ? {} : { ca: readFileSync(certificatePath, 'utf8') };
  const headers = { authorization: `Bearer ${await home.token()}` };
  const put = (target: string, body: string) => call(address, target, { method: 'PUT', headers, body, ...ca });
  expect((await put('/admin/v1/policies/resource/open', openPolicy)).status).toBe(200);
  expect((await put('/admin/v1/resources/default/key/1?policy=open', 'secret')).status).toBe(200);
}

describe('the program', { timeout: 90_000 }, () => {
  it('makes a key and certificate at the first start, keeps them, and ends cleanly', async () => {
    home = createKbsHome({ tlsHosts: ['kbs.test', '127.0.0.1'] });
    const first = await home.start();
    expect(first.address).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    const pem = readFileSync(first.certificatePath ?? '', 'utf8');
    const certificate = new X509Certificate(pem);
    expect(certificate.subjectAltName).toBe('DNS:kbs.test, IP Address:127.0.0.1');
    expect(certificate.publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
    expect(certificate.ca).toBe(false);
    expect(pem).not.toContain('PRIVATE');
    const data = join(home.directory, 'data');
    expect(statSync(data).mode & 0o777).toBe(0o700);
    expect(statSync(join(data, 'tls', 'server.pem')).mode & 0o777).toBe(0o600);
    expect(statSync(join(data, 'kbs.db')).mode & 0o777).toBe(0o600);
    expect((await call(first.address, '/healthz', { ca: pem })).status).toBe(200);
    expect(await first.stop()).toBe(0);
    const second = await home.start();
    expect(readFileSync(second.certificatePath ?? '', 'utf8')).toBe(pem);
    expect(await second.stop('SIGINT')).toBe(0);
  });

  it('releases over TLS with the real attestation service; a fresh install refuses the same guest', async () => {
    home = createKbsHome();
    const kbs = await home.start();
    const ca = readFileSync(kbs.certificatePath ?? '', 'utf8');
    await provide(kbs);
    const headers = { authorization: `Bearer ${await home.token()}` };
    await call(kbs.address, '/admin/v1/resources/default/key/2', { method: 'PUT', headers, body: 'other', ca });
    const guest = await authenticate(kbs.address, {}, ca);
    expect((await attest(kbs.address, guest, undefined, ca)).status).toBe(200);
    const cookie = { cookie: guest.cookie };
    expect(opened(guest, await call(kbs.address, resource, { headers: cookie, ca }))).toBe('secret');
    const refused = await call(kbs.address, '/kbs/v0/resource/default/key/2', { headers: cookie, ca });
    expect(refused.status).toBe(401);
    expect(refused.json()).toMatchObject({ code: 'POLICY_DENY' });
    const decisions = await call(kbs.address, `/admin/v1/decisions/${guest.correlationId}`, { headers, ca });
    expect(decisions.json()['decisions']).toMatchObject([
      { kind: 'auth' },
      { kind: 'attest', outcome: 'OK', evidenceDigest: expect.stringMatching(/^[0-9a-f]{64}$/) },
      { kind: 'resource', outcome: 'OK', policy: { id: 'open' } },
      { kind: 'resource', outcome: 'POLICY_DENY', policy: { id: 'resource-policy' } },
    ]);
    expect(kbs.log()).not.toContain('secret');
  });

  it('takes another certificate on SIGHUP, and keeps the old one where the new one is unusable', async () => {
    home = createKbsHome({ tls: { certificate: 'tls.pem', privateKey: 'tls.pem' } });
    const file = join(home.directory, 'tls.pem');
    const shown = (address: string) =>
      new Promise<string>((resolve, reject) => {
        const { port } = new URL(address);
        const socket = connectTls({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false }, () => {
          resolve(socket.getPeerX509Certificate()?.subjectAltName ?? '');
          socket.destroy();
        });
        socket.on('error', reject);
      });
    writeFileSync(file, await createSelfSigned(['one.test'], Date.now()), { mode: 0o600 });
    const kbs = await home.start();
    expect(await shown(kbs.address)).toBe('DNS:one.test');
    writeFileSync(file, 'no certificate');
    kbs.child.kill('SIGHUP');
    await expect.poll(kbs.log, patience).toContain('"failed":"reload"');
    expect(await shown(kbs.address)).toBe('DNS:one.test');
    writeFileSync(file, await createSelfSigned(['two.test'], Date.now()));
    kbs.child.kill('SIGHUP');
    await expect.poll(() => shown(kbs.address), patience).toBe('DNS:two.test');
  });

  it('lets a running request end when it is told to stop', async () => {
    home = createKbsHome({ insecureHttp: true });
    const kbs = await home.start();
    const { port } = new URL(kbs.address);
    const body = '{"version":"0.4.0","tee":"sample","extra-params":""}';
    const socket = connect(Number(port), '127.0.0.1');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.write(
      `POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\nexpect: 100-continue\r\n\r\n`,
    );
    // The server has the head, and waits for the body.
    await expect.poll(() => String(Buffer.concat(chunks)), patience).toContain('100 Continue');
    const code = kbs.stop();
    await expect
      .poll(
        () =>
          call(kbs.address, '/healthz').then(
            () => 'answered',
            () => 'refused',
          ),
        patience,
      )
      .toBe('refused');
    socket.write(body);
    await new Promise((resolve) => socket.once('close', resolve));
    expect(String(Buffer.concat(chunks))).toContain('HTTP/1.1 200 OK');
    expect(await code).toBe(0);
  });

  it.each([
    ['no configuration', [], 'usage'],
    ['a file that is not there', ['--config', '/no/such/file'], 'cannot be read'],
    ['an unknown option', ['--port', '1'], 'port'],
  ])('says what is wrong with %s, and ends with 1', async (_name, options, text) => {
    home = createKbsHome();
    const { code, stdout, stderr } = await home.run(...(options.length > 0 ? options : ['--']));
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(JSON.parse(stderr)).toMatchObject({ code: 'USAGE', message: expect.stringContaining(text) });
  });

  it('G-09: does not start without an owner key', async () => {
    home = createKbsHome({ admin: { keys: [] } });
    const { code, stderr } = await home.run();
    expect(code).toBe(1);
    expect(JSON.parse(stderr)).toMatchObject({ code: 'USAGE' });
  });
});

describe('an attestation service of its own', { timeout: 90_000 }, () => {
  it('is used over gRPC, its tokens verified with the keys it publishes, or with those a file pins', async () => {
    home = createKbsHome();
    const secretFile = join(home.directory, 'secret');
    const adminSecret = 'a secret of more than sixteen characters';
    writeFileSync(secretFile, adminSecret, { mode: 0o600 });
    const service = await startAttestationService({
      storagePath: join(home.directory, 'attestation', 'service.db'),
      service: { sample: true },
      grpc: { address: '127.0.0.1:0', adminSecret },
      keys: { host: '127.0.0.1', port: 0 },
    });
    try {
      const address = `127.0.0.1:${service.port}`;
      let kbs = await home.start({
        insecureHttp: true,
        attestationService: {
          type: 'grpc',
          address,
          adminSecretFile: 'secret',
          jwksUrl: `http://127.0.0.1:${service.keysPort}/.well-known/jwks.json`,
        },
      });
      await provide(kbs);
      const guest = await authenticate(kbs.address);
      const first = await attest(kbs.address, guest);
      expect(first.status, first.text + kbs.log()).toBe(200);
      expect(opened(guest, await call(kbs.address, resource, { headers: { cookie: guest.cookie } }))).toBe('secret');
      const pinned = {
        insecureHttp: true,
        attestationService: { type: 'grpc', address, adminSecretFile: 'secret', jwksFile: 'keys.json' },
      };
      const published = await call(`http://127.0.0.1:${service.keysPort}`, '/.well-known/jwks.json');
      for (const [keys, status] of [
        ['{"keys":[]}', 401],
        [published.text, 200],
      ] as const) {
        await kbs.stop();
        writeFileSync(join(home.directory, 'keys.json'), keys);
        kbs = await home.start(pinned);
        const other = await authenticate(kbs.address);
        expect((await attest(kbs.address, other)).status).toBe(status);
      }
      const wrong = await authenticate(kbs.address);
      const refused = await attest(kbs.address, wrong, wrong.attestation({ additional: '{"snp":{}}' }));
      expect(refused.status).toBe(401);
      const headers = { authorization: `Bearer ${await home.token()}` };
      const put = await call(kbs.address, '/admin/v1/reference-values/svn', {
        method: 'PUT',
        headers,
        body: '{"value":["1"]}',
      });
      expect(put.status, put.text).toBe(200);
    } finally {
      await service.close();
    }
  });
});

describe('two processes on one data directory', { timeout: 90_000 }, () => {
  it('G-13: share sessions, keys and secrets; a nonce is spent once between them', async () => {
    home = createKbsHome({ insecureHttp: true });
    const [one, two] = await Promise.all([home.start(), home.start()]);
    await provide(one);
    for (let round = 0; round < 8; round += 1) {
      const guest = await authenticate(one.address);
      const replies = await Promise.all([one, two, one, two].map(({ address }) => attest(address, guest)));
      const statuses = replies.map((reply) => reply.status).toSorted();
      expect(statuses).toEqual([200, 401, 401, 401]);
      const token = replies.find((reply) => reply.status === 200)?.json()['token'];
      const byCookie = await call(two.address, resource, { headers: { cookie: guest.cookie } });
      const byBearer = await call(one.address, resource, { headers: { authorization: `Bearer ${token}` } });
      expect([opened(guest, byCookie), opened(guest, byBearer)]).toEqual(['secret', 'secret']);
    }
  });

  it('G-13: a process killed between challenge and evidence is replaced by the other one', async () => {
    home = createKbsHome({ insecureHttp: true });
    const [one, two] = await Promise.all([home.start(), home.start()]);
    await provide(two);
    const guest = await authenticate(one.address);
    expect(await one.stop('SIGKILL')).toBe('SIGKILL');
    expect((await attest(two.address, guest)).status).toBe(200);
    expect(opened(guest, await call(two.address, resource, { headers: { cookie: guest.cookie } }))).toBe('secret');
  });

  it('show one certificate, also when both start for the first time at once', async () => {
    home = createKbsHome();
    const [one, two] = await Promise.all([home.start(), home.start()]);
    const ca = readFileSync(one.certificatePath ?? '', 'utf8');
    for (const { address } of [one, two]) expect((await call(address, '/healthz', { ca })).status).toBe(200);
  });
});
