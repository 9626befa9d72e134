import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

const durationBuckets = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.5, 1];

/**
 * The metrics of one key broker, under upstream's names where it has them. No label holds anything a client chose: not a
 * resource name, a path nor an address.
 */
export class KbsMetrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<'route' | 'status'>;
  readonly #durations: Histogram<'route'>;
  readonly #refusals: Counter<'code'>;
  readonly #authRequests: Counter;
  readonly #attestations: Counter<'tee_type' | 'result'>;
  readonly #resources: Counter<'operation'>;
  readonly #policies: Counter<'result'>;

  constructor(openConnections: () => number) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry, prefix: 'kbs_' });
    const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[]): Counter<Label> =>
      new Counter({ name, help, labelNames: [...labelNames], registers });
    this.#requests = counter('kbs_http_requests_total', 'Requests by route and status.', ['route', 'status']);
    this.#durations = new Histogram({
      name: 'kbs_http_request_duration_seconds',
      help: 'Time from the request head to the answer.',
      labelNames: ['route'],
      buckets: durationBuckets,
      registers,
    });
    this.#refusals = counter('kbs_refusals_total', 'Refused requests by reason code.', ['code']);
    this.#authRequests = counter('kbs_auth_requests_total', 'Challenges asked for.', []);
    this.#attestations = counter('kbs_attestations_total', 'Evidence that was evaluated.', ['tee_type', 'result']);
    this.#resources = counter('kbs_resource_operations_total', 'Resources released, written and deleted.', [
      'operation',
    ]);
    this.#policies = counter('kbs_policy_evaluations_total', 'Evaluations of resource policies.', ['result']);
    new Gauge({
      name: 'kbs_http_active_connections',
      help: 'Open connections.',
      registers,
      collect() {
        this.set(openConnections());
      },
    });
  }

  answered(route: string, status: number, seconds: number, code: string | undefined): void {
    this.#requests.inc({ route, status: String(status) });
    this.#durations.observe({ route }, seconds);
    if (code !== undefined) this.#refusals.inc({ code });
  }

  challenged(): void {
    this.#authRequests.inc();
  }

  /** `tee` is one of the names of the protocol. */
  attested(tee: string, result: 'success' | 'failure'): void {
    this.#attestations.inc({ tee_type: tee, result });
  }

  resource(operation: 'read' | 'write' | 'delete'): void {
    this.#resources.inc({ operation });
  }

  policyEvaluated(result: 'allowed' | 'denied' | 'error'): void {
    this.#policies.inc({ result });
  }

  /** Prometheus text exposition format 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}
