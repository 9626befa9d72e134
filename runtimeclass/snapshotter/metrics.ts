import { mkdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';

const timeoutMs = 10_000;

/** The metrics of one snapshotter. */
export class SnapshotterMetrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<'method' | 'result'>;

  constructor(snapshots: () => number) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry, prefix: 'sealpod_snapshotter_' });
    this.#requests = new Counter({
      name: 'sealpod_snapshotter_requests_total',
      help: 'Requests of containerd by method and result.',
      labelNames: ['method', 'result'],
      registers,
    });
    new Gauge({
      name: 'sealpod_snapshotter_snapshots',
      help: 'Snapshots on record; none of them holds a file.',
      registers,
      collect() {
        this.set(snapshots());
      },
    });
  }

  /** `exists` is the answer for a layer that only the guest pulls. */
  answered(method: string, result: 'ok' | 'exists' | 'error'): void {
    this.#requests.inc({ method, result });
  }

  /**
   * Serves `GET /metrics` on a unix socket of this user alone. Returns what ends it.
   *
   * @throws SealpodError PREREQUISITE where it cannot be served
   */
  async serve(socket: string): Promise<() => void> {
    const server = createServer({ requestTimeout: timeoutMs, headersTimeout: timeoutMs }, (request, response) => {
      if (request.method !== 'GET' || request.url !== '/metrics') {
        response.writeHead(404).end();
        return;
      }
      this.#registry.metrics().then(
        (text) => response.writeHead(200, { 'content-type': this.#registry.contentType }).end(text),
        (error: unknown) => response.writeHead(500).end(String(error)),
      );
    });
    mkdirSync(dirname(socket), { recursive: true });
    rmSync(socket, { force: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('listening', resolve).once('error', reject);
    // Bound within this call, so it never has wider permissions than it should.
    const mask = process.umask(0o177);
    try {
      server.listen(socket);
    } finally {
      process.umask(mask);
    }
    await promise.catch((cause: unknown) => {
      throw new SealpodError('PREREQUISITE', `the metrics cannot be served on ${socket}`, { cause });
    });
    return () => {
      server.close();
      server.closeAllConnections();
    };
  }
}
