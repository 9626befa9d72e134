import { readFileSync } from 'node:fs';
import { runningProcesses } from '@sealpod/processes';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import type { SandboxStatus } from '@sealpod/protocol/status';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { EndedStage } from './start-record.ts';
import type { StartListener } from './start-records.ts';

/** Seconds: a tap takes milliseconds, an emulated boot a minute, a large image several. */
const stageBuckets = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600];
const states: readonly SandboxStatus['state'][] = ['created', 'starting', 'running', 'failed', 'ended'];
/** Arguments of a shim: `serve -id <sandbox> …`; its bootstrap script runs it by this name. */
const shimVerb = 'serve';

/** The metrics of one adaptor. */
export class AdaptorMetrics implements StartListener {
  readonly #registry = new Registry();
  readonly #stages: Histogram<'stage' | 'part'>;
  readonly #refusals: Counter<'code'>;
  #sandboxes: () => readonly SandboxStatus[] = () => [];

  constructor() {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry, prefix: 'sealpod_adaptor_' });
    this.#stages = new Histogram({
      name: 'sealpod_adaptor_stage_duration_seconds',
      help: 'Stages of the starts of pods that ended well.',
      labelNames: ['stage', 'part'],
      buckets: stageBuckets,
      registers,
    });
    this.#refusals = new Counter({
      name: 'sealpod_adaptor_failures_total',
      help: 'Failed starts and refusals by guests, by reason code.',
      labelNames: ['code'],
      registers,
    });
    const sandboxes = () => this.#sandboxes();
    new Gauge({
      name: 'sealpod_adaptor_sandboxes',
      help: 'Pod VMs by state; those that are gone for 15 minutes.',
      labelNames: ['state'],
      registers,
      collect() {
        for (const state of states) this.set({ state }, sandboxes().filter((one) => one.state === state).length);
      },
    });
    new Gauge({
      name: 'sealpod_adaptor_vm_memory_bytes',
      help: 'Memory that the running pod VMs have as their guests see it.',
      registers,
      collect() {
        this.set(running(sandboxes()).reduce((sum, { vm }) => sum + vm.memoryMiB * 2 ** 20, 0));
      },
    });
    new Gauge({
      name: 'sealpod_adaptor_pod_process_bytes',
      help: "Proportional memory (PSS) on this node of a pod's hypervisor and shim.",
      labelNames: ['namespace', 'pod', 'process'],
      registers,
      collect() {
        this.reset();
        for (const { namespace, pod, process, bytes } of podProcesses(running(sandboxes())))
          this.set({ namespace, pod, process }, bytes);
      },
    });
  }

  /** Where the gauges take the sandboxes from. */
  observe(sandboxes: () => readonly SandboxStatus[]): void {
    this.#sandboxes = sandboxes;
  }

  stageEnded({ stage, part = '', durationMs, code }: EndedStage): void {
    if (code === 'OK') this.#stages.observe({ stage, part }, durationMs / 1000);
  }

  refused(code: ReasonCode): void {
    this.#refusals.inc({ code });
  }

  /** Prometheus text exposition format 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}

function running(sandboxes: readonly SandboxStatus[]): readonly SandboxStatus[] {
  return sandboxes.filter(({ state }) => state === 'running' || state === 'starting');
}

/** The processes on this node that exist for one pod. A VM of another machine has none but the shim. */
function podProcesses(sandboxes: readonly SandboxStatus[]) {
  const owners = new Map(sandboxes.map(({ sandboxId, pod }) => [sandboxId, pod]));
  const hypervisors = new Map(sandboxes.map(({ vm, pod }) => [Number(vm.instance ?? Number.NaN), pod]));
  return runningProcesses().flatMap(({ pid, arguments: words }) => {
    const verb = words.indexOf(shimVerb);
    const shimOf = verb > 0 && words[verb + 1] === '-id' ? owners.get(words[verb + 2] ?? '') : undefined;
    const pod = hypervisors.get(pid) ?? shimOf;
    const bytes = pod === undefined ? undefined : proportionalBytes(pid);
    if (pod === undefined || bytes === undefined) return [];
    return [{ namespace: pod.namespace, pod: pod.name, process: shimOf ? 'shim' : 'hypervisor', bytes }];
  });
}

/** PSS of a process; undefined where it is gone or may not be looked at. */
function proportionalBytes(pid: number): number | undefined {
  try {
    const kilobytes = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  } catch (error) {
    if (error instanceof Error && 'code' in error && ['ENOENT', 'ESRCH', 'EACCES'].includes(String(error.code)))
      return undefined;
    throw error;
  }
}
