import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attest, authenticate, call } from '../../kbs/testing/client.ts';
import { createKbsHome, type KbsHome, type KbsProcess } from '../../kbs/testing/process.ts';
import { type CommandResult, root, run } from '../e2e/environment.ts';

const folder = mkdtempSync(join(tmpdir(), 'sealpod-token-keys-'));
const keyFile = join(folder, 'owner.key');
let home: KbsHome;
let kbs: KbsProcess;

beforeAll(async () => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  writeFileSync(join(folder, 'owner.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
  writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  home = createKbsHome({ insecureHttp: true, admin: { keys: [{ publicKeyFile: join(folder, 'owner.pem') }] } });
  kbs = await home.start();
});
afterAll(async () => {
  await home.remove();
  rmSync(folder, { recursive: true, force: true });
});

const sealpod = (...args: readonly string[]): Promise<CommandResult> =>
  run(
    join(root, 'cli/bin/sealpod'),
    ['--home', join(folder, 'home'), '--kbs-url', kbs.address, '--admin-key', keyFile, ...args],
    process.env,
  );

async function published(): Promise<string[]> {
  const { keys } = (await call(kbs.address, '/.well-known/jwks.json')).json() as { keys: { kid: string }[] };
  return keys.map(({ kid }) => kid);
}

describe('sealpod token-key, at a key broker in a process of its own', () => {
  it('lists and rotates: the key set then holds both, and a token of the old key still verifies', async () => {
    const guest = await authenticate(kbs.address);
    const token = String((await attest(kbs.address, guest)).json()['token']);
    const before = await published();
    const listed = await sealpod('-o', 'json', 'token-key', 'list');
    expect(listed.code, listed.stderr).toBe(0);
    expect(JSON.parse(listed.stdout)).toMatchObject([{ kid: before[0], state: 'signing' }]);

    const rotated = await sealpod('-o', 'json', 'token-key', 'rotate');
    expect(rotated.code, rotated.stderr).toBe(0);
    expect(JSON.parse(rotated.stdout)).toMatchObject({
      rotated: true,
      keys: [
        { kid: before[0], state: 'signing', publishedUntil: expect.any(String) },
        { state: 'next', signsFrom: expect.any(String) },
      ],
    });
    const after = await published();
    expect(after).toEqual([before[0], expect.any(String)]);
    const keySet = createRemoteJWKSet(new URL('/.well-known/jwks.json', kbs.address));
    const { protectedHeader } = await jwtVerify(token, keySet);
    expect(protectedHeader.kid).toBe(before[0]);

    const again = await sealpod('token-key', 'rotate');
    expect([again.code, again.stderr]).toEqual([0, expect.stringContaining('no key was added')]);
    expect(again.stdout).toMatch(/KID +STATE +SIGNS FROM +PUBLISHED UNTIL\n.* signing .*\n.* next .* not limited\n/);
    expect(await published()).toEqual(after);
  });

  it('a restart keeps the keys', async () => {
    const before = await published();
    await kbs.stop();
    kbs = await home.start();
    expect(await published()).toEqual(before);
  });
});
