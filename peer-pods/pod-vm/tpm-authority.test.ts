import { X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createTpmAuthority } from './tpm-authority.ts';

let directory: string;
const owner =
  process.getuid?.() === 0
    ? { uid: 65534, gid: 65534 }
    : { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-tpm-'));
});

afterEach(() => rmSync(directory, { recursive: true }));

describe('createTpmAuthority', () => {
  it('certifies every TPM by one root, keeps its keys, and is opened again as it was', async (context) => {
    if (!existsSync('/usr/bin/swtpm_setup')) context.skip('swtpm_setup is not installed');
    const authority = await createTpmAuthority(join(directory, 'ca'));
    const { root, issuer } = authority.certificates();
    const [rootCertificate, issuerCertificate] = [root, issuer].map((file) => new X509Certificate(readFileSync(file)));
    expect(rootCertificate?.verify(rootCertificate.publicKey)).toBe(true);
    expect(rootCertificate !== undefined && issuerCertificate?.verify(rootCertificate.publicKey)).toBe(true);
    const keys = join(directory, 'ca', 'authority');
    for (const name of readdirSync(keys)) expect(statSync(join(keys, name)).mode & 0o077).toBe(0);
    expect(statSync(keys).mode & 0o077).toBe(0);

    await authority.createTpm(join(directory, 'first'), owner);
    const again = await createTpmAuthority(join(directory, 'ca'));
    expect(readFileSync(again.certificates().root)).toEqual(readFileSync(root));
    await again.createTpm(join(directory, 'second'), owner);
    const [first, second] = ['first', 'second'].map((name) => readFileSync(join(directory, name, 'tpm2-00.permall')));
    expect(first).not.toEqual(second);
    for (const name of ['first', 'second']) {
      const state = statSync(join(directory, name, 'tpm2-00.permall'));
      expect([state.mode & 0o777, state.uid]).toEqual([0o600, owner.uid]);
    }
  });
});
