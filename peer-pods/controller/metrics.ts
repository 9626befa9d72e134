import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** What the controller counts. */
export class ControllerMetrics {
  readonly registry = new Registry();
  readonly #reconciles = new Counter({
    name: 'sealpod_controller_reconciles_total',
    help: 'Looks at a resource, by its kind and how they ended',
    labelNames: ['kind', 'result'],
    registers: [this.registry],
  });
  readonly #seconds = new Histogram({
    name: 'sealpod_controller_reconcile_seconds',
    help: 'Time of one look at a resource',
    labelNames: ['kind'],
    buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 30],
    registers: [this.registry],
  });
  readonly #leader = new Gauge({
    name: 'sealpod_controller_leader',
    help: '1 where this process leads',
    registers: [this.registry],
  });

  constructor(depth: () => number) {
    new Gauge({
      name: 'sealpod_controller_queue_depth',
      help: 'Resources that wait to be looked at',
      registers: [this.registry],
      collect() {
        this.set(depth());
      },
    });
  }

  reconciled(kind: string, result: 'done' | 'failed', seconds: number): void {
    this.#reconciles.inc({ kind, result });
    this.#seconds.observe({ kind }, seconds);
  }

  leads(leads: boolean): void {
    this.#leader.set(leads ? 1 : 0);
  }
}
