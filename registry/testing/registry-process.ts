import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A docker-registry process of one's own, for tests and benchmarks. */
export interface RegistryProcess {
  /** `127.0.0.1:<port>`, plain HTTP. */
  readonly host: string;
  /** Directory of its files, gone after {@link stop}. */
  readonly storage: string;
  stop(): Promise<void>;
}

/** Why no registry can be started here, or undefined. */
export function registryProcessMissing(): string | undefined {
  try {
    execFileSync('docker-registry', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'docker-registry is not installed';
  }
}

/**
 * Starts a registry on a free port with its storage in a new temporary directory, and waits until it answers.
 *
 * @param options.htpasswd lines of `user:bcrypt`; with them the registry asks for Basic credentials
 */
export async function startRegistry(options: { readonly htpasswd?: string } = {}): Promise<RegistryProcess> {
  const directory = await mkdtemp(join(tmpdir(), 'sealpod-registry-'));
  const host = `127.0.0.1:${await freePort()}`;
  const authentication =
    options.htpasswd === undefined ? {} : { auth: await writePasswords(directory, options.htpasswd) };
  const configuration = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(directory, 'storage') }, delete: { enabled: true } },
    http: { addr: host },
    ...authentication,
  };
  // JSON is YAML.
  const path = join(directory, 'configuration.yml');
  await writeFile(path, JSON.stringify(configuration));
  const child = spawn('docker-registry', ['serve', path], {
    stdio: 'ignore',
    env: { PATH: process.env['PATH'], OTEL_TRACES_EXPORTER: 'none' },
  });
  const stop = async (): Promise<void> => {
    await end(child);
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await untilAnswering(host, child);
  } catch (error) {
    await stop();
    throw error;
  }
  return { host, storage: join(directory, 'storage'), stop };
}

async function writePasswords(directory: string, htpasswd: string): Promise<object> {
  const path = join(directory, 'htpasswd');
  await writeFile(path, htpasswd);
  return { htpasswd: { realm: 'test', path } };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function untilAnswering(host: string, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (Date.now() < deadline) {
    if (child.exitCode !== null) throw new Error(`docker-registry ended with ${child.exitCode}`);
    const answered = await fetch(`http://${host}/v2/`).then(
      (response) => response.body?.cancel().then(() => true) ?? true,
      () => false,
    );
    if (answered) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('docker-registry does not answer');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
