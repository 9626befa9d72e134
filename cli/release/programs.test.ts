import { spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { writePrograms } from './images.ts';
import { servicesImage } from './programs.ts';

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-programs-'));
  await writePrograms(join(folder, 'app'), servicesImage);
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('the key broker of the services image starts with nothing but what is in the image', async () => {
  const administrator = join(folder, 'administrator.pem');
  const { publicKey } = generateKeyPairSync('ed25519');
  writeFileSync(administrator, publicKey.export({ format: 'pem', type: 'spki' }));
  const configuration = join(folder, 'kbs.json');
  writeFileSync(
    configuration,
    JSON.stringify({
      listen: { host: '127.0.0.1', port: 0 },
      dataDirectory: join(folder, 'data'),
      admin: { keys: [{ publicKeyFile: administrator }] },
      attestationService: { type: 'builtin' },
    }),
  );
  const app = join(folder, 'app');
  const child = spawn(join(app, 'node'), [join(app, 'kbs.mjs'), '--config', configuration], {
    cwd: '/',
    env: { PATH: app },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const ended = new Promise<string>((resolve) => {
    child.once('close', (code, signal) => resolve(`ended with ${code ?? signal}: ${errors}`));
  });
  const announced = new Promise<string>((resolve) => createInterface(child.stdout).once('line', resolve));
  try {
    expect(await Promise.race([announced, ended])).toMatch(/^\{"listening":"https:\/\/127\.0\.0\.1:\d+"/);
  } finally {
    child.kill('SIGTERM');
    await ended;
  }
});
