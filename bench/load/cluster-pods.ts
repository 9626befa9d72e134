import { setTimeout as delay } from 'node:timers/promises';
import type { SandboxStatus } from '@sealpod/protocol/status';
import { processMemory } from '@sealpod/runtimeclass/bench';
import { readMetrics, readSandboxes } from '@sealpod/runtimeclass/pod-events';
import { statusSocketBeside } from '../../cli/development/adaptor.ts';
import { TestCluster, type TestPod } from '../../test/kubernetes/test-cluster.ts';

const startTimeoutMs = 1_800_000;
const lookMs = 250;

/** Pods that were applied together and all run. */
export interface StartedPods {
  /** Milliseconds from before the objects were applied until each pod was seen Running. */
  readonly milliseconds: readonly number[];
  /** What the adaptor knows of them; none for pods of runc. */
  readonly sandboxes: readonly SandboxStatus[];
}

/** Seconds that the kubelet waited for RunPodSandbox, all of one runtime handler together. */
export interface SandboxSeconds {
  readonly sum: number;
  readonly count: number;
}

/** Starts pods of both kinds on one cluster and looks at them. */
export class ClusterPods {
  readonly test = new TestCluster();
  #started = 0;

  async start(machines: number): Promise<void> {
    await this.test.start('--machines', String(machines));
    // The processor share that a pod's overhead claims would keep ten of them off a node with two processors.
    const overhead = JSON.stringify({ overhead: { podFixed: { cpu: '1m' } } });
    await this.test.ok('patch', 'runtimeclass', 'sealpod', '--type', 'merge', '--patch', overhead);
  }

  async end(): Promise<void> {
    await this.test.sealpod('cluster', 'down');
    await this.test.remove();
  }

  /** Starts so many pods at once with the image of all, and leaves them running. */
  async run(kind: 'sealpod' | 'runc', count: number): Promise<StartedPods> {
    const names = Array.from({ length: count }, () => `bench-${kind}-${++this.#started}`);
    const command = ['/bin/sh', '-c', 'while :; do sleep 1; done'];
    const objects = names.map((name) => {
      const pod: TestPod = { name, containers: [{ name: 'main', command }], labels: { bench: 'pods' } };
      return kind === 'sealpod' ? this.test.pod(pod) : plainPod(name, this.test.image, command);
    });
    const began = performance.now();
    await this.test.apply(...objects);
    const seen = new Map<string, number>();
    while (seen.size < count) {
      const { items } = (await this.test.get('pods', '-l', 'bench=pods')) as { items: readonly RunningPod[] };
      for (const { metadata, status } of items) {
        const waits = names.includes(metadata.name) && !seen.has(metadata.name);
        if (waits && status.phase === 'Failed')
          throw new Error(`pod ${metadata.name} failed: ${status.reason ?? ''} ${status.message ?? ''}`);
        if (waits && status.phase === 'Running') seen.set(metadata.name, performance.now() - began);
      }
      if (performance.now() - began > startTimeoutMs)
        throw new Error(`${count - seen.size} of ${count} pods do not run after ${startTimeoutMs / 1000} s`);
      await delay(lookMs);
    }
    const sandboxes = kind === 'runc' ? [] : (await this.sandboxes()).filter(({ pod }) => names.includes(pod.name));
    return { milliseconds: [...seen.values()], sandboxes };
  }

  /** Removes all pods, and waits until they are gone. */
  async clear(): Promise<void> {
    await this.test.ok('delete', 'pods', '-l', 'bench=pods', '--grace-period=1', '--wait', '--timeout=250s');
  }

  sandboxes(): Promise<readonly SandboxStatus[]> {
    return readSandboxes(this.#statusSocket);
  }

  /** PSS in MiB of each pod's hypervisor and shim. */
  async podMemory(): Promise<{ readonly hypervisor: readonly number[]; readonly shim: readonly number[] }> {
    const text = await readMetrics([this.#statusSocket]);
    const of = (process: string): number[] =>
      [...text.matchAll(/^sealpod_adaptor_pod_process_bytes\{(.*)\} (\d+)$/gm)]
        .filter(([, labels = '']) => labels.includes(`process="${process}"`))
        .map(([, , bytes]) => Number(bytes) / 2 ** 20);
    return { hypervisor: of('hypervisor'), shim: of('shim') };
  }

  /** PSS of the adaptor in MiB. */
  adaptorMemory(): number {
    const adaptor = this.test.state().daemons.find(({ name }) => name === 'adaptor');
    if (adaptor === undefined) throw new Error('no adaptor runs');
    return processMemory(adaptor.pid).proportionalMiB;
  }

  /** What the kubelet has measured of RunPodSandbox so far; `handler` is empty for the default runtime. */
  async sandboxSeconds(handler: string): Promise<SandboxSeconds> {
    const node = (await this.test.ok('get', 'nodes', '-o', 'name')).trim().replace('node/', '');
    const text = await this.test.ok('get', '--raw', `/api/v1/nodes/${node}/proxy/metrics`);
    const value = (suffix: string): number => {
      const line = `kubelet_run_podsandbox_duration_seconds_${suffix}{runtime_handler="${handler}"} `;
      const found = text.split('\n').find((one) => one.startsWith(line));
      return found === undefined ? 0 : Number(found.slice(line.length));
    };
    return { sum: value('sum'), count: value('count') };
  }

  get #statusSocket(): string {
    return statusSocketBeside(String(this.test.state()['adaptorSocket']));
  }
}

interface RunningPod {
  readonly metadata: { readonly name: string };
  readonly status: { readonly phase?: string; readonly reason?: string; readonly message?: string };
}

function plainPod(name: string, image: string, command: readonly string[]): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { bench: 'pods' } },
    spec: { terminationGracePeriodSeconds: 2, containers: [{ name: 'main', image, command }] },
  };
}
