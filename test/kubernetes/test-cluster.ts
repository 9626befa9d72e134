import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { buildImage, type ImageEntry, pushImage } from '@sealpod/cli/image';
import { agentPolicy, type ContainerPolicy, podInitdata } from '@sealpod/cli/pod';
import { type ClusterState, readClusterState } from '@sealpod/cluster';
import { encodeInitdataAnnotation } from '@sealpod/protocol/initdata';
import { parseReference, RegistryClient } from '@sealpod/registry';
import { type CommandResult, run, TestEnvironment } from '../e2e/environment.ts';

/** A container of a test's pod, as in its manifest. The agent policy pins its image and command. */
export interface TestContainer {
  readonly name: string;
  readonly command: readonly string[];
  readonly image?: string;
  readonly [field: string]: unknown;
}

/** A pod of a test: the manifest's `spec` without what every sealed pod has. */
export interface TestPod {
  readonly name: string;
  readonly containers: readonly TestContainer[];
  readonly initContainers?: readonly TestContainer[];
  /** Commands of exec probes and hooks; used where `allowExec` is false. */
  readonly commands?: readonly (readonly string[])[];
  readonly allowExec?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly spec?: Readonly<Record<string, unknown>>;
}

/** Why no cluster can run here, or undefined where one can. */
export function clusterObstacle(): string | undefined {
  if (process.env['SEALPOD_LONG_TESTS'] !== '1')
    return 'builds a cluster and boots many machines: set SEALPOD_LONG_TESTS=1';
  if (process.getuid?.() !== 0) return 'needs root';
  if (spawnSync('nft', ['--version']).status !== 0) return 'needs nft (nftables)';
  const go = spawnSync('go', ['env', 'GOVERSION'], { encoding: 'utf8' });
  return go.status === 0 ? undefined : 'needs Go 1.26 or newer to build Kubernetes';
}

/** A Kubernetes with the runtime, of the test's own. */
export class TestCluster extends TestEnvironment {
  #image = '';

  get directory(): string {
    return join(this.home, 'cluster');
  }

  get cluster(): ClusterState {
    const state = readClusterState(this.directory);
    if (state === undefined) throw new Error('no cluster runs');
    return state;
  }

  /** The plain image of all tests, by digest: busybox with all its programs, and user 1000. */
  get image(): string {
    return this.#image;
  }

  /** `sealpod cluster up`; waits while another cluster has the machine, as one of another test run may. */
  async up(...options: readonly string[]): Promise<CommandResult> {
    const deadline = Date.now() + 540_000;
    for (;;) {
      const result = await this.sealpod('cluster', 'up', ...options);
      if (!result.stderr.includes('another cluster runs on this machine') || Date.now() > deadline) return result;
      await delay(5000);
    }
  }

  async start(...options: readonly string[]): Promise<void> {
    const up = await this.up('--with-runtime', ...options);
    if (up.code !== 0) throw new Error(`sealpod cluster up: exit ${up.code}\n${up.stderr}`);
    await this.useImage();
  }

  /** Pushes the image that pods run where they name none. */
  async useImage(): Promise<void> {
    this.#image = await this.pushBusybox('tests/busybox', 'plain');
  }

  /** Pushes a busybox image to the cluster's registry; returns its reference by digest. `content` makes it another image. */
  async pushBusybox(name: string, content: string): Promise<string> {
    const programs = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).split('\n');
    const applets = programs.filter((applet) => applet !== '' && applet !== 'busybox');
    const root: ImageEntry[] = [
      ...['bin', 'etc', 'root', 'www'].map((path): ImageEntry => ({ path, type: 'directory' })),
      { path: 'tmp', type: 'directory', mode: 0o1777 },
      { path: 'bin/busybox', type: 'file', mode: 0o755, content: { file: '/bin/busybox' } },
      ...applets.map((applet): ImageEntry => ({ path: `bin/${applet}`, type: 'symlink', target: 'busybox' })),
      {
        path: 'etc/passwd',
        type: 'file',
        content: Buffer.from('root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n'),
      },
      { path: 'content', type: 'file', content: Buffer.from(`${content}\n`) },
    ];
    const folder = mkdtempSync(join(tmpdir(), 'sealpod-image-'));
    try {
      const output = join(folder, 'layout');
      await buildImage({ root, process: { command: ['/bin/sh'], environment: ['PATH=/bin'] }, output, tag: 'latest' });
      const { registry } = this.cluster;
      const digest = await pushImage({
        plainHttpHosts: new Set([registry]),
        source: { kind: 'layout', directory: output, tag: 'latest' },
        destination: parseReference(`${registry}/${name}:1`),
      });
      return `${registry}/${name}@${digest}`;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** An image in the environment's registry, by digest. */
  async resolve(name: string): Promise<string> {
    const [repository = '', tag = ''] = name.split(':');
    const registry = String(this.state()['registry']);
    const client = new RegistryClient({ registry, plainHttpHosts: new Set([registry]) });
    try {
      return `${registry}/${repository}@${(await client.fetchManifest(repository, tag)).digest}`;
    } finally {
      client.close();
    }
  }

  /** Removes an image from the node, as the kubelet does to have space. */
  removeImage(image: string): void {
    const { programs, containerdSocket } = this.cluster;
    const ctr = (...args: readonly string[]) =>
      execFileSync(join(programs, 'ctr'), ['-a', containerdSocket, '-n', 'k8s.io', 'images', ...args], {
        encoding: 'utf8',
      });
    const digest = image.split('@')[1] ?? image;
    const names = ctr('ls')
      .split('\n')
      .filter((line) => line.includes(digest))
      .map((line) => line.split(' ')[0] ?? '');
    if (names.length === 0) throw new Error(`${image} is not on the node`);
    ctr('rm', '--sync', ...names);
  }

  /** What a pod's guest is told: what it may run, and whom it may ask. */
  initdata(pod: TestPod): string {
    const containers = [...(pod.initContainers ?? []), ...pod.containers].map(
      ({ command, image = this.#image }): ContainerPolicy => ({ image, args: command }),
    );
    const [repository = '', digest = ''] = (containers[0]?.image ?? '').split('@');
    const state = this.state();
    return podInitdata({
      kbsUrl: String(state['kbsUrl']),
      kbsCertificatePem: readFileSync(String(state['kbsCertificateFile']), 'utf8'),
      plainHttpRegistries: [repository.split('/')[0] ?? ''],
      imageRepository: repository,
      imageDigests: [digest],
      agentPolicy: agentPolicy({ containers, commands: pod.commands ?? [], allowExec: pod.allowExec ?? true }),
    });
  }

  /** A pod template (metadata and spec) that runs in a machine of its own. */
  template(pod: TestPod): object {
    const complete = (container: TestContainer) => ({ image: this.#image, ...container });
    return {
      metadata: {
        labels: { app: pod.name, ...pod.labels },
        annotations: {
          ...pod.annotations,
          'io.katacontainers.config.hypervisor.cc_init_data': encodeInitdataAnnotation(this.initdata(pod)),
        },
      },
      spec: {
        runtimeClassName: 'sealpod',
        terminationGracePeriodSeconds: 2,
        ...pod.spec,
        ...(pod.initContainers && { initContainers: pod.initContainers.map(complete) }),
        containers: pod.containers.map(complete),
      },
    };
  }

  /** The manifest of a pod. */
  pod(pod: TestPod): object {
    const template = this.template(pod) as { metadata: object };
    return { apiVersion: 'v1', kind: 'Pod', ...template, metadata: { name: pod.name, ...template.metadata } };
  }

  /** Runs kubectl; never throws for an exit code. */
  kubectl(...args: readonly string[]): Promise<CommandResult> {
    const { programs, kubeconfig } = this.cluster;
    return run(join(programs, 'kubectl'), ['--kubeconfig', kubeconfig, ...args], process.env);
  }

  /** As `kubectl`, and throws with what it printed where it fails. */
  async ok(...args: readonly string[]): Promise<string> {
    const result = await this.kubectl(...args);
    if (result.code !== 0) throw new Error(`kubectl ${args.join(' ')}: exit ${result.code}\n${result.stderr}`);
    return result.stdout;
  }

  /** As `ok`, with text on standard input. */
  async withInput(input: string, ...args: readonly string[]): Promise<string> {
    const { programs, kubeconfig } = this.cluster;
    const all = ['--kubeconfig', kubeconfig, ...args];
    const result = await run(join(programs, 'kubectl'), all, process.env, input);
    if (result.code !== 0) throw new Error(`kubectl ${args.join(' ')}: exit ${result.code}\n${result.stderr}`);
    return result.stdout;
  }

  /** Creates or changes objects. */
  async apply(...objects: readonly object[]): Promise<void> {
    await this.withInput(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }), 'apply', '-f', '-');
  }

  async get(...args: readonly string[]): Promise<Record<string, unknown>> {
    return JSON.parse(await this.ok('get', ...args, '-o', 'json')) as Record<string, unknown>;
  }

  /** Waits for a condition; on failure throws with the pods' events. */
  async waitFor(condition: string, ...objects: readonly string[]): Promise<void> {
    const result = await this.kubectl('wait', '--timeout=280s', `--for=${condition}`, ...objects);
    if (result.code === 0) return;
    const described = await this.kubectl('describe', ...objects);
    throw new Error(`${result.stderr}\n${described.stdout}`);
  }

  /** Removes pods at once, and waits until they are gone. */
  async delete(...objects: readonly string[]): Promise<void> {
    await this.ok('delete', '--wait', '--timeout=60s', ...objects);
  }
}
