import { mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { SandboxList } from '@sealpod/protocol/status';
import express from 'express';
import type { AdaptorMetrics } from './status/metrics.ts';
import type { StartRecords } from './status/start-records.ts';

const timeoutMs = 10_000;
const maxConnections = 32;

/** What an adaptor tells. */
export interface AdaptorStatus {
  readonly starts: StartRecords;
  readonly metrics: AdaptorMetrics;
  /** Certificates (PEM) of the authority of its machines' TPMs; undefined where it is none. */
  readonly tpmAuthority: () => Promise<string | undefined>;
}

/**
 * Serves `GET /v1/sandboxes`, `GET /v1/tpm-authority` and `GET /metrics` on a unix socket that only the adaptor's own user
 * may open. Returns what ends it. No adaptor may serve the same path: a socket that stands there is taken to be left over.
 *
 * @throws SealpodError PREREQUISITE where the socket cannot be served
 */
export async function serveStatus(
  socketPath: string,
  { starts, metrics, tpmAuthority }: AdaptorStatus,
): Promise<() => Promise<void>> {
  const app = express();
  app.disable('x-powered-by');
  app.get('/v1/sandboxes', async (_request, response) => {
    await starts.refresh();
    const answer: SandboxList = { sandboxes: starts.list() };
    response.json(answer);
  });
  app.get('/v1/tpm-authority', async (_request, response) => {
    const certificates = await tpmAuthority();
    if (certificates === undefined)
      response.status(404).type('text').send('another endorses the TPMs of these machines\n');
    else response.type('application/x-pem-file').send(certificates);
  });
  app.get('/metrics', async (_request, response) => {
    await starts.refresh();
    response.type(metrics.contentType).send(await metrics.text());
  });
  const server = createServer({ requestTimeout: timeoutMs, headersTimeout: timeoutMs }, app);
  server.maxConnections = maxConnections;
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o700 });
  await rm(socketPath, { force: true });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('listening', resolve).once('error', reject);
  // The socket is bound within this call, so it never has wider permissions than it should.
  const mask = process.umask(0o177);
  try {
    server.listen(socketPath);
  } finally {
    process.umask(mask);
  }
  await promise.catch((cause: unknown) => {
    throw new SealpodError('PREREQUISITE', `the status cannot be served on ${socketPath}`, { cause });
  });
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
}
