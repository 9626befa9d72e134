import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type ControlPlane, startControlPlane } from '@sealpod/cluster';
import { expect, vi } from 'vitest';
import { root, run } from '../e2e/environment.ts';
import { programs } from './programs.ts';

interface Pod {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: {
    readonly nodeName?: string;
    readonly serviceAccountName?: string;
    readonly containers: readonly { name: string; command?: readonly string[] }[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/**
 * A control plane of the test's own, with one node on which nothing runs: `kubelet` says of its pods that they are ready, but
 * for the pod of Helm's hook, whose program it runs with the rights of its ServiceAccount.
 */
export class TestControlPlane {
  folder = '';
  readonly controllerLog: string[] = [];
  #plane: ControlPlane | undefined;
  #controller: ChildProcess | undefined;
  readonly #ending = new AbortController();
  #kubelet: Promise<void> = Promise.resolve();

  async start(): Promise<void> {
    this.folder = mkdtempSync(join(tmpdir(), 'sp-cp-'));
    this.#plane = await startControlPlane(join(this.folder, 'c'), programs ?? '');
    // Every pod needs the ServiceAccount of its namespace.
    await vi.waitFor(() => this.ok('get', 'serviceaccount', 'default'), { timeout: 60_000, interval: 500 });
    await this.apply({
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: 'worker', labels: { 'kubernetes.io/os': 'linux', 'kubernetes.io/hostname': 'worker' } },
    });
    const resources = { cpu: '8', memory: '16Gi', pods: '100', 'ephemeral-storage': '100Gi' };
    const conditions = [{ type: 'Ready', status: 'True', reason: 'Test', lastHeartbeatTime: new Date().toISOString() }];
    const status = JSON.stringify({ status: { capacity: resources, allocatable: resources, conditions } });
    await this.ok('patch', 'node', 'worker', '--subresource=status', '--type=merge', '-p', status);
    // It is created with a taint that goes when it is ready.
    await this.ok('patch', 'node', 'worker', '--type=merge', '-p', '{"spec":{"taints":null}}');
    this.#kubelet = this.#standIn();
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.stopController();
    await this.#kubelet;
    await this.#plane?.stop();
    if (this.folder !== '') rmSync(this.folder, { recursive: true, force: true });
  }

  /** Runs a program of Kubernetes; never throws for an exit code. */
  program(name: 'kubectl' | 'helm', args: readonly string[], input?: string) {
    const environment = {
      ...process.env,
      KUBECONFIG: this.#plane?.kubeconfig ?? '',
      HELM_CACHE_HOME: this.folder,
      HELM_CONFIG_HOME: this.folder,
    };
    return run(join(programs ?? '', name), args, environment, input);
  }

  kubectl(...args: readonly string[]) {
    return this.program('kubectl', args);
  }

  /** Runs kubectl, and throws with what it printed where it fails. */
  async ok(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.kubectl(...args);
    if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: exit ${code}\n${stderr}`);
    return stdout;
  }

  async helm(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.program('helm', args);
    if (code !== 0) throw new Error(`helm ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Creates or changes an object; what the API server says against it, or nothing. */
  async tryApply(object: object, ...options: readonly string[]): Promise<string> {
    const { code, stderr } = await this.program('kubectl', ['apply', ...options, '-f', '-'], JSON.stringify(object));
    return code === 0 ? '' : stderr;
  }

  async apply(object: object): Promise<void> {
    const refused = await this.tryApply(object);
    if (refused !== '') throw new Error(refused);
  }

  async get<T>(...args: readonly string[]): Promise<T> {
    return JSON.parse(await this.ok('get', ...args, '-o', 'json')) as T;
  }

  /** A kubeconfig with the rights of a ServiceAccount, and of nobody else. */
  async kubeconfigOf(namespace: string, name: string, ...options: readonly string[]): Promise<string> {
    const token = (await this.ok('create', 'token', name, '-n', namespace, ...options)).trim();
    const plane = this.#plane;
    if (plane === undefined) throw new Error('no control plane runs');
    const authority = readFileSync(plane.authorityFile).toString('base64');
    const file = join(this.folder, `${namespace}-${name}.conf`);
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'c', cluster: { server: plane.server, 'certificate-authority-data': authority } }],
      users: [{ name: 'u', user: { token } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'c',
    };
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
    return file;
  }

  /** Runs the controller as its Deployment would, with the configuration of its ConfigMap. */
  async startController(): Promise<void> {
    const { data } = await this.get<{ data: Record<string, string> }>(
      'configmap',
      'sealpod-controller',
      '-n',
      'sealpod-system',
    );
    const config = { ...(JSON.parse(data['controller.json'] ?? '') as object), healthPort: 0 };
    const file = join(this.folder, 'controller.json');
    mkdirSync(this.folder, { recursive: true });
    writeFileSync(file, JSON.stringify(config));
    const kubeconfig = await this.kubeconfigOf('sealpod-system', 'sealpod-controller');
    this.#controller = this.#program(kubeconfig, ['--config', file], (line) => this.controllerLog.push(line));
    await vi.waitFor(() => expect(this.controllerLog.join('')).toContain('"leading"'), { timeout: 60_000 });
  }

  async stopController(): Promise<void> {
    const controller = this.#controller;
    if (controller === undefined || controller.exitCode !== null) return;
    const ended = new Promise((resolve) => controller.once('exit', resolve));
    controller.kill('SIGTERM');
    await ended;
  }

  #program(kubeconfig: string, args: readonly string[], line: (text: string) => void): ChildProcess {
    const child = spawn(process.execPath, [join(root, 'peer-pods/controller/main.ts'), ...args], {
      env: { ...process.env, KUBECONFIG: kubeconfig },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.on('data', (chunk: Buffer) => line(String(chunk)));
    return child;
  }

  async #standIn(): Promise<void> {
    const hooks = new Set<string>();
    while (!this.#ending.signal.aborted) {
      await delay(400);
      const { code, stdout } = await this.kubectl('get', 'pods', '-A', '-o', 'json');
      if (code !== 0) continue;
      for (const pod of (JSON.parse(stdout) as { items: Pod[] }).items) {
        const { name, namespace, deletionTimestamp, labels = {} } = pod.metadata;
        if (pod.spec.nodeName === undefined) continue;
        if (deletionTimestamp !== undefined) {
          await this.kubectl('delete', 'pod', name, '-n', namespace, '--grace-period=0', '--force', '--wait=false');
        } else if (labels['app.kubernetes.io/component'] === 'uninstall') {
          if (!hooks.has(name)) void this.#runHook(pod);
          hooks.add(name);
        } else if (!pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True')) {
          await this.#say(pod, 'Running');
        }
      }
    }
  }

  async #runHook(pod: Pod): Promise<void> {
    const kubeconfig = await this.kubeconfigOf(pod.metadata.namespace, pod.spec.serviceAccountName ?? '');
    const args = pod.spec.containers[0]?.command?.slice(2) ?? [];
    const child = this.#program(kubeconfig, args, (line) => this.controllerLog.push(`hook: ${line}`));
    const code = await new Promise<number | null>((resolve) => child.once('exit', resolve));
    await this.#say(pod, code === 0 ? 'Succeeded' : 'Failed');
  }

  async #say({ metadata, spec }: Pod, phase: 'Running' | 'Succeeded' | 'Failed'): Promise<void> {
    const running = phase === 'Running';
    const lastTransitionTime = new Date().toISOString();
    const conditions = ['Ready', 'ContainersReady', 'Initialized', 'PodScheduled'].map((type) => ({
      type,
      status: running || type === 'Initialized' || type === 'PodScheduled' ? 'True' : 'False',
      lastTransitionTime,
    }));
    const state = running
      ? { running: { startedAt: lastTransitionTime } }
      : { terminated: { exitCode: phase === 'Failed' ? 1 : 0 } };
    const containerStatuses = spec.containers.map(({ name }) => ({
      name,
      ready: running,
      restartCount: 0,
      image: '',
      imageID: '',
      state,
    }));
    const status = JSON.stringify({ status: { phase, conditions, containerStatuses, startTime: lastTransitionTime } });
    await this.kubectl(
      'patch',
      'pod',
      metadata.name,
      '-n',
      metadata.namespace,
      '--subresource=status',
      '--type=merge',
      '-p',
      status,
    );
  }

  /** Names of everything that lasts, in all namespaces. */
  async everything(): Promise<string[]> {
    const kinds = (await this.ok('api-resources', '--verbs=list', '-o', 'name')).trim().split('\n');
    const lasting = kinds.filter(
      (kind) => !/^(events|leases|componentstatuses|endpointslices|endpoints|controllerrevisions)\b/.test(kind),
    );
    const text = await this.ok(
      'get',
      lasting.join(','),
      '-A',
      '-o',
      'custom-columns=K:kind,NS:metadata.namespace,N:metadata.name',
      '--no-headers',
      '--ignore-not-found',
    );
    return text
      .trim()
      .split('\n')
      .map((line) => line.trim().replace(/\s+/g, ' '))
      .sort();
  }
}
