import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { KbsConfig } from '../config.ts';
import { loadTls } from './tls.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-tls-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const load = (...tlsHosts: readonly string[]) =>
  loadTls({ dataDirectory: directory, tlsHosts } as unknown as KbsConfig, Date.now());

it('keeps key and certificate over restarts', async () => {
  const first = await load('localhost', '10.0.0.1');
  expect(await load('localhost', '10.0.0.1')).toEqual(first);
});

it('certifies the same key anew where the machine has another address, so that guests that pin it still connect', async () => {
  const before = await load('10.0.0.1');
  const after = await load('10.0.0.2', 'kbs.example');
  const certificate = new X509Certificate(after.certificate);
  expect(certificate.checkIP('10.0.0.2')).toBe('10.0.0.2');
  expect(certificate.checkHost('kbs.example')).toBe('kbs.example');
  expect(certificate.publicKey.equals(new X509Certificate(before.certificate).publicKey)).toBe(true);
  expect(certificate.verify(certificate.publicKey)).toBe(true);
  expect(await load('10.0.0.2', 'kbs.example')).toEqual(after);
});
