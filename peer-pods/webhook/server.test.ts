import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Log } from '../adaptor/log.ts';
import { parseWebhookConfig } from './config.ts';
import { serveWebhook, type WebhookServer } from './server.ts';

let folder: string;
let server: WebhookServer;
let warnings: string[];
const log: Log = { info: () => undefined, warn: (_fields, message) => warnings.push(message), error: () => undefined };
const file = (name: string) => join(folder, name);

/** A pair of its own in `<name>.crt` and `<name>.key`. */
function makePair(name: string): void {
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'];
  const files = ['-keyout', file(`${name}.key`), '-out', file(`${name}.crt`)];
  execFileSync('openssl', ['req', '-x509', ...curve, ...subject, ...files], { stdio: 'ignore' });
}

/** The name in the certificate that the server shows. */
function shownName(): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: server.port, rejectUnauthorized: false }, () => {
      const raw = socket.getPeerX509Certificate()?.raw;
      socket.destroy();
      resolve(raw === undefined ? '' : new X509Certificate(raw).subject);
    });
    socket.once('error', reject);
  });
}

function post(
  path: string,
  body: string | Buffer,
  type = 'application/json',
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const ca = readFileSync(file('one.crt'));
    const headers = { 'content-type': type };
    const outgoing = request(
      { host: '127.0.0.1', port: server.port, path, method: 'POST', ca, headers, agent: false },
      (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-webhook-'));
  warnings = [];
  makePair('one');
  const config = {
    host: '127.0.0.1',
    port: 0,
    certificateFile: file('one.crt'),
    keyFile: file('one.key'),
    reloadIntervalMs: 20,
    runtimeClasses: { sealpod: {} },
  };
  server = await serveWebhook(parseWebhookConfig(JSON.stringify(config), 'test'), log);
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('webhook server', () => {
  it('answers reviews by TLS', async () => {
    const object = {
      metadata: { name: 'p' },
      spec: { runtimeClassName: 'sealpod', hostPID: true, containers: [{ name: 'c' }] },
    };
    const review = {
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      request: { uid: 'u1', kind: { kind: 'Pod' }, object },
    };
    const mutation = await post('/mutate', JSON.stringify(review));
    expect(mutation.status).toBe(200);
    expect(JSON.parse(mutation.body)).toMatchObject({ response: { uid: 'u1', allowed: true, patchType: 'JSONPatch' } });
    const validation = await post('/validate', JSON.stringify(review));
    expect(JSON.parse(validation.body)).toMatchObject({ response: { uid: 'u1', allowed: false } });
  });

  it.each([
    ['no JSON', '{', 'application/json', 400],
    ['no review', '{}', 'application/json', 400],
    ['another type', '{}', 'text/plain', 400],
    ['too much', Buffer.alloc(5 << 20, 32), 'application/json', 413],
  ])('G-27: what cannot be answered is an error, never an admission: %s', async (_what, body, type, status) => {
    const answer = await post('/validate', body, type);
    expect(answer.status).toBe(status);
    expect(answer.body).not.toContain('allowed');
  });

  it('takes a new certificate while it serves, and keeps the old one where the new pair does not fit', async () => {
    expect(await shownName()).toBe('CN=one');
    makePair('two');
    renameSync(file('two.crt'), file('one.crt'));
    await expect.poll(() => warnings, { timeout: 10_000 }).toContain('new certificate refused, the one before stays');
    expect(await shownName()).toBe('CN=one');
    renameSync(file('two.key'), file('one.key'));
    await expect.poll(shownName, { timeout: 10_000 }).toBe('CN=two');
  });

  it('does not start with a pair that cannot be used', async () => {
    writeFileSync(file('bad.crt'), 'no certificate');
    const config = { certificateFile: file('bad.crt'), keyFile: file('one.key'), runtimeClasses: { sealpod: {} } };
    const parsed = parseWebhookConfig(JSON.stringify(config), 'test');
    await expect(serveWebhook(parsed, log)).rejects.toMatchObject({ code: 'USAGE' });
  });
});
