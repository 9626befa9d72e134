import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { buildImage, type ImageEntry, pushImage } from '@sealpod/cli/image';
import { agentPolicy, type ContainerPolicy } from '@sealpod/cli/pod';
import { type ClusterState, readClusterState } from '@sealpod/cluster';
import { encodeInitdataAnnotation } from '@sealpod/protocol/initdata';
import { parseReference, RegistryClient } from '@sealpod/registry';
import { initdataAnnotation, workloadInitdata } from '@sealpod/workload';
import { parse } from 'yaml';
import { type CommandResult, run, TestEnvironment } from '../e2e/environment.ts';
import { type GivenCluster, givenCluster, releaseOption, sharedHome } from './access.ts';

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
  /** What the image policy allows; without it the images of its containers. */
  readonly allowedImages?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly spec?: Readonly<Record<string, unknown>>;
}

/** A Kubernetes with the runtime: the test's own, one that is left running, or a given one. */
export class TestCluster extends TestEnvironment {
  readonly given: GivenCluster | undefined = givenCluster();
  readonly #shared = sharedHome() !== undefined;
  #image = '';

  constructor() {
    super(sharedHome());
  }

  get directory(): string {
    return join(this.home, 'cluster');
  }

  /** The test's own cluster. @throws Error where it is a given one, whose node is out of reach */
  get cluster(): ClusterState {
    const state = readClusterState(this.directory);
    if (state === undefined) throw new Error('no cluster runs');
    return state;
  }

  /** `host:port` of the registry that pods' images are in. */
  get registry(): string {
    return this.given?.registry ?? this.cluster.registry;
  }

  get #plainHttpHosts(): ReadonlySet<string> {
    return new Set(this.given?.plainHttp === false ? [] : [this.registry]);
  }

  /** The key broker, as guests reach it, and the file of its certificate. */
  get keyBroker(): { readonly url: string; readonly certificateFile: string } {
    if (this.given !== undefined) return { url: this.given.kbsUrl, certificateFile: this.given.kbsCertificateFile };
    const state = this.state();
    return { url: String(state['kbsUrl']), certificateFile: String(state['kbsCertificateFile']) };
  }

  /** As `sealpod`; on a given cluster at its key broker. */
  override sealpod(...args: readonly string[]): Promise<CommandResult> {
    return super.sealpod(...this.#keyBrokerOptions, ...args);
  }

  override sealpodWithInput(input: string, ...args: readonly string[]): Promise<CommandResult> {
    return super.sealpodWithInput(input, ...this.#keyBrokerOptions, ...args);
  }

  get #keyBrokerOptions(): readonly string[] {
    if (this.given === undefined) return [];
    const { kbsUrl, kbsCertificateFile, ownerKeyFile } = this.given;
    return ['--kbs-url', kbsUrl, '--kbs-certificate', kbsCertificateFile, '--admin-key', ownerKeyFile];
  }

  /** The plain image of all tests, by digest: busybox with all its programs, and user 1000. */
  get image(): string {
    return this.#image;
  }

  /** `sealpod cluster up`; waits while another cluster has the machine, as one of another test run may. */
  async up(...options: readonly string[]): Promise<CommandResult> {
    const deadline = Date.now() + 540_000;
    for (;;) {
      const result = await this.sealpod('cluster', 'up', ...releaseOption(), ...options);
      if (!result.stderr.includes('another cluster runs on this machine') || Date.now() > deadline) return result;
      await delay(5000);
    }
  }

  /** Starts a cluster with the runtime, unless there is one already; an earlier test's objects are removed from it. */
  async start(...options: readonly string[]): Promise<void> {
    if (this.given === undefined && !(this.#shared && existsSync(this.directory))) {
      const up = await this.up('--with-runtime', ...options);
      if (up.code !== 0) throw new Error(`sealpod cluster up: exit ${up.code}\n${up.stderr}`);
    }
    await this.useImage();
  }

  /** Whether there is a cluster to speak to. */
  get running(): boolean {
    return this.given !== undefined || readClusterState(this.directory) !== undefined;
  }

  /** A file with this content, for a command to read; it is removed with the environment. */
  file(name: string, content: string): string {
    const path = join(this.home, name);
    writeFileSync(path, content);
    return path;
  }

  /** Ends what `start` started: nothing of it may be left. */
  async stop(): Promise<void> {
    if (this.given !== undefined || this.#shared) return;
    try {
      for (const verb of [['cluster', 'down'], ['down']]) {
        const ended = await this.sealpod(...verb);
        if (ended.code !== 0) throw new Error(`sealpod ${verb.join(' ')}: exit ${ended.code}\n${ended.stderr}`);
      }
      const residue = this.residue();
      if (residue.length > 0) throw new Error(`left on the machine:\n${residue.join('\n')}`);
    } finally {
      await this.remove();
    }
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
    return this.push(name, root, { command: ['/bin/sh'], environment: ['PATH=/bin'] });
  }

  /** Pushes an image of these files to the cluster's registry; returns its reference by digest. */
  async push(
    name: string,
    root: readonly ImageEntry[],
    process: { readonly command: readonly string[]; readonly environment: readonly string[] },
  ): Promise<string> {
    const folder = mkdtempSync(join(tmpdir(), 'sealpod-image-'));
    try {
      const output = join(folder, 'layout');
      await buildImage({ root, process, output, tag: 'latest' });
      const { registry } = this;
      const digest = await pushImage({
        plainHttpHosts: this.#plainHttpHosts,
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
    const registry = this.given?.registry ?? String(this.state()['registry']);
    const client = new RegistryClient({
      registry,
      plainHttpHosts: this.given === undefined ? new Set([registry]) : this.#plainHttpHosts,
    });
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
    const images = pod.allowedImages ?? containers.map(({ image }) => image);
    const { url, certificateFile } = this.keyBroker;
    return workloadInitdata({
      kbs: { url, certificatePem: readFileSync(certificateFile, 'utf8') },
      plainHttpRegistries: [...new Set(images.map((image) => image.split('/')[0] ?? ''))],
      images,
      agentPolicy: agentPolicy({ containers, commands: pod.commands ?? [], allowExec: pod.allowExec ?? true }),
    }).toml;
  }

  /** A pod template (metadata and spec) that runs in a machine of its own. */
  template(pod: TestPod): object {
    const complete = (container: TestContainer) => ({ image: this.#image, ...container });
    return {
      metadata: {
        labels: { app: pod.name, ...pod.labels },
        annotations: {
          ...pod.annotations,
          [initdataAnnotation]: encodeInitdataAnnotation(this.initdata(pod)),
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

  /**
   * Manifests with what the real `sealpod policy generate` writes into them, for kubectl to apply; and the digests of the
   * initdata, by workload (`Pod web`).
   */
  async seal(
    objects: readonly object[],
    ...options: readonly string[]
  ): Promise<{ readonly objects: readonly object[]; readonly digests: Readonly<Record<string, string>> }> {
    const folder = mkdtempSync(join(tmpdir(), 'sealpod-manifests-'));
    try {
      const digests = join(folder, 'digests.json');
      const { url, certificateFile } = this.keyBroker;
      const registries = [
        ...new Set([this.registry, String(this.given === undefined ? this.state()['registry'] : '')]),
      ];
      const result = await this.sealpodWithInput(
        JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }),
        ...['policy', 'generate', '-f', '-', '--digests', digests],
        ...['--guest-kbs-url', url, '--guest-kbs-certificate', certificateFile],
        ...(this.given?.plainHttp === false ? [] : ['--plain-http-registry', ...registries.filter(Boolean)]),
        ...options,
      );
      if (result.code !== 0) throw new Error(`sealpod policy generate: exit ${result.code}\n${result.stderr}`);
      const { items } = parse(result.stdout) as { readonly items: readonly object[] };
      const report = JSON.parse(readFileSync(digests, 'utf8')) as readonly {
        readonly workload: string;
        readonly initdataDigest: string;
      }[];
      return {
        objects: items,
        digests: Object.fromEntries(report.map(({ workload, initdataDigest }) => [workload, initdataDigest])),
      };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** Registers digests of initdata: the owner's word that guests told so may have secrets. */
  async enrol(...digests: readonly string[]): Promise<void> {
    const present = await this.sealpod('-o', 'json', 'refvalue', 'get', 'tpm_initdata');
    const { value } = (present.code === 0 ? JSON.parse(present.stdout) : { value: [] }) as { value: readonly string[] };
    await this.json('refvalue', 'put', 'tpm_initdata', ...new Set([...value, ...digests]));
  }

  /** Waits until the events of a pod say `text`; returns them all, the last first. */
  async told(pod: string, text: RegExp, timeoutMs = 240_000): Promise<string> {
    const [namespace, name] = pod.includes('/') ? pod.split('/') : ['default', pod];
    const selector = `involvedObject.name=${name}`;
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const events = await this.ok(
        ...['get', 'events', '-n', namespace ?? '', '--field-selector', selector, '--sort-by=.lastTimestamp'],
        ...['-o', 'jsonpath={range .items[*]}{.reason}: {.message}{"\\n"}{end}'],
      );
      if (text.test(events)) return events;
      if (Date.now() > deadline) throw new Error(`no event of ${pod} says ${text}:\n${events}`);
      await delay(1000);
    }
  }

  /** Runs kubectl; never throws for an exit code. */
  kubectl(...args: readonly string[]): Promise<CommandResult> {
    const [program, ...first] = this.kubectlCommand;
    return run(program, [...first, ...args], process.env);
  }

  /** Starts kubectl, for what goes on until it is ended. */
  spawnKubectl(...args: readonly string[]): ChildProcessWithoutNullStreams {
    const [program, ...first] = this.kubectlCommand;
    return spawn(program, [...first, ...args]);
  }

  /** The words that begin a kubectl command line: a program, and which cluster. */
  get kubectlCommand(): readonly [string, ...string[]] {
    if (this.given !== undefined) return ['kubectl', '--kubeconfig', this.given.kubeconfig];
    const { programs, kubeconfig } = this.cluster;
    return [join(programs, 'kubectl'), '--kubeconfig', kubeconfig];
  }

  /** As `kubectl`, and throws with what it printed where it fails. */
  async ok(...args: readonly string[]): Promise<string> {
    const result = await this.kubectl(...args);
    if (result.code !== 0) throw new Error(`kubectl ${args.join(' ')}: exit ${result.code}\n${result.stderr}`);
    return result.stdout;
  }

  /** As `ok`, with text on standard input. */
  async withInput(input: string, ...args: readonly string[]): Promise<string> {
    const [program, ...first] = this.kubectlCommand;
    const result = await run(program, [...first, ...args], process.env, input);
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
