import { createServer } from 'node:http';
import express from 'express';
import type { Registry } from 'prom-client';

/** A server of health and metrics. */
export interface HealthServer {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves `/healthz`, `/readyz` and `/metrics` by HTTP; nothing there is secret.
 *
 * @param isHealthy false has the kubelet restart the process
 */
export async function serveHealth(port: number, isHealthy: () => boolean, registry: Registry): Promise<HealthServer> {
  const app = express();
  app.disable('x-powered-by');
  for (const path of ['/healthz', '/readyz']) {
    app.get(path, (_request, response) => {
      const healthy = isHealthy();
      response
        .status(healthy ? 200 : 503)
        .type('text/plain')
        .send(healthy ? 'ok' : 'stuck');
    });
  }
  app.get('/metrics', async (_request, response) => {
    response.type(registry.contentType).send(await registry.metrics());
  });
  const server = createServer({ requestTimeout: 10_000 }, app);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
