import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { root } from '../e2e/environment.ts';
import type { TestCluster } from './test-cluster.ts';

const program = join(root, 'peer-pods/webhook/main.ts');

/** Runs the admission webhook on the host and makes the cluster ask it. Returns what ends it. */
export async function startWebhook(test: TestCluster, runtimeClass: object): Promise<() => Promise<void>> {
  const folder = join(test.home, 'webhook');
  mkdirSync(folder, { mode: 0o700 });
  const file = (name: string): string => join(folder, name);
  const { node } = test.cluster.addresses;
  const subject = ['-subj', '/CN=webhook', '-addext', `subjectAltName=IP:${node}`];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'];
  const files = ['-keyout', file('key.pem'), '-out', file('certificate.pem')];
  execFileSync('openssl', ['req', '-x509', ...curve, ...subject, ...files], { stdio: 'ignore' });
  const configuration = {
    host: node,
    port: 0,
    certificateFile: file('certificate.pem'),
    keyFile: file('key.pem'),
    runtimeClasses: { sealpod: runtimeClass },
  };
  writeFileSync(file('webhook.json'), JSON.stringify(configuration));
  const child = spawn(process.execPath, [program, '--config', file('webhook.json')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = once(child, 'exit');
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await exited;
  };
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  createInterface({ input: child.stderr }).on('line', (line) => {
    const { msg, port } = JSON.parse(line) as { msg: string; port?: number };
    if (msg === 'serving' && port !== undefined) resolve(port);
  });
  void exited.then(() => reject(new Error('the webhook ended')));
  try {
    const url = `https://${node}:${await promise}`;
    const manifests = execFileSync(
      process.execPath,
      [program, '--config', file('webhook.json'), '--manifests', '--url', url, '--ca', file('certificate.pem')],
      { encoding: 'utf8' },
    );
    await test.withInput(manifests, 'apply', '-f', '-');
    return stop;
  } catch (error) {
    await stop();
    throw error;
  }
}
