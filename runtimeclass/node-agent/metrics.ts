import { Counter, Gauge, Registry } from 'prom-client';
import type { AgentStatus } from './status.ts';

/** Metrics of one node agent. No label holds anything that a pod chose. */
export class NodeAgentMetrics {
  /** Others may register their own metrics here. */
  readonly registry = new Registry();
  readonly #ready: Gauge;
  readonly #failures: Counter<'stage' | 'code'>;
  readonly #repairs: Counter<'what'>;
  readonly #restarts: Counter;
  readonly #looked: Gauge;

  constructor() {
    const registers = [this.registry];
    this.#ready = new Gauge({
      name: 'sealpod_node_ready',
      help: 'Whether pods of the runtime class can run on this node (1) or not (0).',
      registers,
    });
    this.#failures = new Counter({
      name: 'sealpod_node_failures_total',
      help: 'Looks at the node that failed, by stage and reason code.',
      labelNames: ['stage', 'code'],
      registers,
    });
    this.#repairs = new Counter({
      name: 'sealpod_node_repairs_total',
      help: 'Files placed again and services started.',
      labelNames: ['what'],
      registers,
    });
    this.#restarts = new Counter({
      name: 'sealpod_node_containerd_restarts_total',
      help: 'Restarts of containerd by the node agent.',
      registers,
    });
    this.#looked = new Gauge({
      name: 'sealpod_node_last_look_timestamp_seconds',
      help: 'When the node was last looked at.',
      registers,
    });
  }

  looked(status: AgentStatus): void {
    this.#ready.set(status.ready ? 1 : 0);
    if (status.lookedAt !== undefined) this.#looked.set(status.lookedAt / 1000);
    if (status.failure !== undefined)
      this.#failures.inc({ stage: status.failure.stage, code: status.failure.error.code });
  }

  repaired(what: string, count: number): void {
    if (count > 0) this.#repairs.inc({ what }, count);
  }

  containerdRestarted(): void {
    this.#restarts.inc();
  }
}
