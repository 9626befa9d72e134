import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startCluster, stopCluster } from '@sealpod/cluster';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

/*
 * The webhook as a process of its own, asked by a real API server: what it changes, what it refuses, and what happens to
 * confidential and to ordinary pods when it is gone.
 */

const cache = join(process.env['SEALPOD_CACHE'] ?? '/var/cache/sealpod', 'cluster');
const programs = existsSync(cache)
  ? readdirSync(cache)
      .map((name) => join(cache, name))
      .find((folder) => existsSync(join(folder, 'complete')))
  : undefined;
const root = fileURLToPath(new URL('../..', import.meta.url));

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

const missing = programs === undefined ? ' (skipped: the cluster is not built, run `sealpod cluster up` once)' : '';
describe.skipIf(programs === undefined)(`admission on a real API server${missing}`, () => {
  // containerd's socket path has to stay below 108 bytes.
  const folder = mkdtempSync(join(tmpdir(), 'sealpod-admission-'));
  const file = (name: string) => join(folder, name);
  let kubeconfig = '';
  let webhook: ChildProcess | undefined;

  const kubectl = (args: readonly string[], input: object): string =>
    execFileSync(join(programs ?? '', 'kubectl'), ['--kubeconfig', kubeconfig, ...args], {
      input: JSON.stringify(input),
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  /** The pod as the API server would store it, or what it answers instead. */
  const create = (pod: object): { metadata: { annotations?: Record<string, string> } } | string => {
    try {
      return JSON.parse(kubectl(['create', '--dry-run=server', '-o', 'json', '-f', '-'], pod)) as {
        metadata: { annotations?: Record<string, string> };
      };
    } catch (thrown) {
      return String((thrown as { stderr?: string }).stderr);
    }
  };
  const image = `registry.test/app@sha256:${'a'.repeat(64)}`;
  const pod = (spec: object = {}, namespace = 'default') => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace },
    spec: { runtimeClassName: 'sealpod', containers: [{ name: 'c', image }], ...spec },
  });

  beforeAll(async () => {
    const state = await startCluster(file('c'), programs ?? '', async (_name, run) => run());
    kubeconfig = state.kubeconfig;
    const port = await freePort();
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'];
    const names = ['-subj', '/CN=webhook', '-addext', 'subjectAltName=IP:127.0.0.1'];
    execFileSync('openssl', ['req', '-x509', ...curve, ...names, '-keyout', file('key'), '-out', file('crt')], {
      stdio: 'ignore',
    });
    const config = {
      host: '127.0.0.1',
      port,
      certificateFile: file('crt'),
      keyFile: file('key'),
      runtimeClasses: { sealpod: {}, 'sealpod-peer': { handler: 'sealpod', extendedResource: 'kata.peerpods.io/vm' } },
    };
    writeFileSync(file('config.json'), JSON.stringify(config));
    const main = [join(root, 'peer-pods/webhook/main.ts'), '--config', file('config.json')];
    webhook = spawn(process.execPath, main, { stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    webhook.stderr?.on('data', (chunk: Buffer) => {
      log += chunk;
    });
    await vi.waitFor(() => expect(log).toContain('serving'), { timeout: 20_000 });
    const where = ['--manifests', '--ca', file('crt'), '--url', `https://127.0.0.1:${port}`];
    const manifests = JSON.parse(execFileSync(process.execPath, [...main, ...where], { encoding: 'utf8' })) as object;
    kubectl(['apply', '-f', '-'], manifests);
    const runtimeClass = (name: string) => ({
      apiVersion: 'node.k8s.io/v1',
      kind: 'RuntimeClass',
      metadata: { name },
      handler: 'sealpod',
      overhead: { podFixed: { cpu: '250m', memory: '120Mi' } },
    });
    const namespace = (name: string, labels: object) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels },
    });
    kubectl(['apply', '-f', '-'], {
      apiVersion: 'v1',
      kind: 'List',
      items: [
        runtimeClass('sealpod'),
        runtimeClass('sealpod-peer'),
        namespace('sealed', { 'sealpod.io/confidential': 'true' }),
      ],
    });
    // Policies and webhooks are taken up a moment after they were written.
    await vi.waitFor(() => expect(create(pod({ hostPID: true }))).toContain('hostPID: '), { timeout: 30_000 });
    const tagged = pod({ containers: [{ name: 'c', image: 'registry.test/app:1' }] });
    await vi.waitFor(() => expect(create(tagged)).toContain('imageDigest: '), { timeout: 30_000 });
  });
  afterAll(async () => {
    webhook?.kill('SIGKILL');
    await stopCluster(file('c'));
    rmSync(folder, { recursive: true, force: true });
  });

  it('writes size and handler into the pod, with the overhead that the API server added', () => {
    const resources = { requests: { cpu: '1', memory: '64Mi' } };
    const stored = create(pod({ containers: [{ name: 'c', image, resources }] }));
    expect(stored).toMatchObject({
      metadata: {
        annotations: {
          'io.katacontainers.config.hypervisor.default_vcpus': '2',
          'io.katacontainers.config.hypervisor.default_memory': '184',
          'io.containerd.cri.runtime-handler': 'sealpod',
        },
      },
      spec: { overhead: { cpu: '250m' } },
      // Kubernetes' own judgement of what was kept.
      status: { qosClass: 'Burstable' },
    });
    const peer = create(pod({ runtimeClassName: 'sealpod-peer' }));
    expect(peer).toMatchObject({ spec: { containers: [{ resources: { limits: { 'kata.peerpods.io/vm': '1' } } }] } });
  });

  it('S-17: refuses by name what the guest would refuse', () => {
    const container = (more: object) => pod({ containers: [{ name: 'c', image, ...more }] });
    for (const [rule, of] of [
      ['hostNetwork', pod({ hostNetwork: true })],
      ['hostIPC', pod({ hostIPC: true })],
      ['shareProcessNamespace', pod({ shareProcessNamespace: true })],
      ['hostPath', pod({ volumes: [{ name: 'v', hostPath: { path: '/' } }] })],
      ['privileged', container({ securityContext: { privileged: true } })],
      ['allCapabilities', container({ securityContext: { capabilities: { add: ['ALL'] } } })],
      ['hostPort', container({ ports: [{ containerPort: 80, hostPort: 8080 }] })],
      ['imageDigest', container({ image: 'registry.test/app:1' })],
      ['runtimeClass', { ...pod({ runtimeClassName: null }, 'sealed') }],
    ] as const) {
      expect(create(of)).toContain(`${rule}: `);
    }
  });

  it('G-27: when the webhook is gone, confidential pods are refused and ordinary ones are not', async () => {
    const ended = new Promise((resolve) => webhook?.once('exit', resolve));
    webhook?.kill('SIGKILL');
    await ended;
    expect(create(pod())).toContain('failed calling webhook "mutate.sealpod.io"');
    const ordinary = pod({ runtimeClassName: null, hostNetwork: true });
    expect(create(ordinary)).toMatchObject({ metadata: { name: 'p' } });
  });

  it('keeps its own key out of the manifests', () => {
    const main = [join(root, 'peer-pods/webhook/main.ts'), '--config', file('config.json')];
    const where = ['--manifests', '--ca', file('crt'), '--service', 'sealpod-system/webhook'];
    const text = execFileSync(process.execPath, [...main, ...where], { encoding: 'utf8' });
    expect(text).toContain('"namespace": "sealpod-system"');
    expect(text).not.toContain(readFileSync(file('key'), 'utf8').split('\n')[1]);
  });
});
