import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createClusterPki, writeKubeconfig } from '../../cluster/pki.ts';

const cache = join(process.env['SEALPOD_CACHE'] ?? '/var/cache/sealpod', 'cluster');

/** Folder of the programs of the development cluster, where they have been built. */
export const clusterPrograms = existsSync(cache)
  ? readdirSync(cache)
      .map((name) => join(cache, name))
      .find((folder) => ['complete', 'kube-apiserver'].every((name) => existsSync(join(folder, name))))
  : undefined;

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** What came of a request: the object, or the API server's words. */
export type Answer = { readonly object: StoredObject } | { readonly refusal: string };

export interface StoredObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly annotations?: Readonly<Record<string, string>> };
  readonly spec: Readonly<Record<string, unknown>>;
  readonly status?: Readonly<Record<string, unknown>>;
}

/**
 * A real kube-apiserver with its etcd on free ports of loopback, without a node, controllers or anything of the machine that
 * is shared: what admission is about needs no more.
 */
export class ApiServer {
  readonly folder = mkdtempSync(join(tmpdir(), 'sealpod-api-'));
  readonly kubeconfig: string;
  readonly #programs: string;
  readonly #children: ChildProcess[] = [];

  private constructor(programs: string) {
    this.#programs = programs;
    this.kubeconfig = join(this.folder, 'pki', 'admin.conf');
  }

  static async start(programs: string): Promise<ApiServer> {
    const server = new ApiServer(programs);
    try {
      await server.#start();
      return server;
    } catch (thrown) {
      await server.stop();
      throw thrown;
    }
  }

  async #start(): Promise<void> {
    const [client, peer, port] = [await freePort(), await freePort(), await freePort()];
    const pki = await createClusterPki(join(this.folder, 'pki'), 'node', '127.0.0.1', '10.96.0.1');
    writeKubeconfig(pki, 'admin', `https://127.0.0.1:${port}`);
    this.#run('etcd', [
      `--data-dir=${join(this.folder, 'etcd')}`,
      '--name=test',
      '--unsafe-no-fsync',
      `--listen-client-urls=http://127.0.0.1:${client}`,
      `--advertise-client-urls=http://127.0.0.1:${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-cluster=test=http://127.0.0.1:${peer}`,
    ]);
    this.#run('kube-apiserver', [
      `--etcd-servers=http://127.0.0.1:${client}`,
      '--bind-address=127.0.0.1',
      '--advertise-address=127.0.0.1',
      '--endpoint-reconciler-type=none',
      `--secure-port=${port}`,
      `--tls-cert-file=${pki.file('apiserver.crt')}`,
      `--tls-private-key-file=${pki.file('apiserver.key')}`,
      `--client-ca-file=${pki.file('ca.crt')}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.96.0.0/24',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-signing-key-file=${pki.file('service-accounts.key')}`,
      `--service-account-key-file=${pki.file('service-accounts.pub')}`,
      '--allow-privileged=true',
    ]);
    await this.#ready();
    // No controller makes them here, and no pod is taken without one.
    this.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: 'default' } });
  }

  #run(name: string, args: readonly string[]): void {
    const child = spawn(join(this.#programs, name), args, { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.on('data', (chunk: Buffer) => writeFileSync(join(this.folder, `${name}.log`), chunk, { flag: 'a' }));
    this.#children.push(child);
  }

  async #ready(): Promise<void> {
    const deadline = Date.now() + 240_000;
    for (;;) {
      try {
        if (this.kubectl(['get', '--raw', '/readyz']) === 'ok') return;
      } catch (thrown) {
        if (Date.now() > deadline) throw thrown;
      }
      await delay(300);
    }
  }

  /** Runs kubectl; throws with what it said. */
  kubectl(args: readonly string[], input?: object | string): string {
    const text = typeof input === 'object' ? JSON.stringify(input) : input;
    return execFileSync(join(this.#programs, 'kubectl'), ['--kubeconfig', this.kubeconfig, ...args], {
      input: text ?? '',
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
      maxBuffer: 16 << 20,
    });
  }

  apply(object: object): void {
    this.kubectl(['apply', '-f', '-'], object);
  }

  /** Runs kubectl for an object: as it is stored, or why it is not. */
  ask(args: readonly string[], input?: object): Answer {
    try {
      return { object: JSON.parse(this.kubectl([...args, '-o', 'json'], input)) as StoredObject };
    } catch (thrown) {
      return { refusal: String((thrown as { stderr?: string }).stderr) };
    }
  }

  /** What would be stored, or why not. */
  tryCreate(object: object): Answer {
    return this.ask(['create', '--dry-run=server', '-f', '-'], object);
  }

  /** Replaces an object at a path of the API: how subresources are written. Empty where it is taken. */
  put(path: string, object: object): string {
    try {
      this.kubectl(['replace', '--raw', path, '-f', '-'], object);
      return '';
    } catch (thrown) {
      return String((thrown as { stderr?: string }).stderr);
    }
  }

  get(path: string): StoredObject {
    return JSON.parse(this.kubectl(['get', '--raw', path])) as StoredObject;
  }

  async stop(): Promise<void> {
    for (const child of this.#children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
