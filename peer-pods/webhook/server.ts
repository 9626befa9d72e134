import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { createServer, type Server } from 'node:https';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import express, { type NextFunction, type Request, type Response } from 'express';
import type { Log } from '../adaptor/log.ts';
import type { WebhookConfig } from './config.ts';
import { type ReviewAnswer, reviewMutation, reviewRuntimeClass, reviewValidation } from './review.ts';

/** A pod is at most 1.5 MiB in etcd; a review may hold it twice. */
const maxReviewBytes = 4 * 1024 * 1024;
const requestTimeoutMs = 10_000;

/** A webhook that serves. */
export interface WebhookServer {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves `/mutate`, `/validate`, `/runtime-class` and `/healthz` by TLS. Certificate and key are read again when their files change; a pair
 * that does not fit together is refused and the one before stays.
 *
 * @throws SealpodError USAGE where the first pair cannot be used
 */
export async function serveWebhook(config: WebhookConfig, log: Log): Promise<WebhookServer> {
  const server = createServer({ ...readPair(config), minVersion: 'TLSv1.2' }, application(config, log));
  server.requestTimeout = requestTimeoutMs;
  const stopWatching = watchPair(config, server, log);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.port, config.host, resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : config.port,
    close: () =>
      new Promise((resolve) => {
        stopWatching();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function application(config: WebhookConfig, log: Log): express.Express {
  const app = express();
  app.disable('x-powered-by');
  app.get('/healthz', (_request, response) => {
    response.type('text/plain').send('ok');
  });
  const review =
    (answer: (body: unknown, config: WebhookConfig) => ReviewAnswer) => (request: Request, response: Response) => {
      const { response: verdict, ...rest } = answer(request.body, config);
      if (!verdict.allowed) log.info({ uid: verdict.uid, message: verdict.status?.message }, 'refused');
      response.json({ ...rest, response: verdict });
    };
  const json = express.json({ limit: maxReviewBytes, type: 'application/json' });
  app.post('/mutate', json, review(reviewMutation));
  app.post('/validate', json, review(reviewValidation));
  app.post('/runtime-class', json, review(reviewRuntimeClass));
  app.use((thrown: unknown, _request: Request, response: Response, _next: NextFunction) => {
    const { status } = thrown as { status?: unknown };
    const error = asSealpodError(thrown, 'REQUEST_FORMAT');
    log.warn({ code: error.code, error: error.message }, 'a review that cannot be answered');
    response.status(typeof status === 'number' ? status : 400).json({ code: error.code, message: error.message });
  });
  return app;
}

function readPair({ certificateFile, keyFile }: WebhookConfig): { readonly cert: Buffer; readonly key: Buffer } {
  try {
    const [cert, key] = [readFileSync(certificateFile), readFileSync(keyFile)];
    if (new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) return { cert, key };
  } catch (cause) {
    throw new SealpodError('USAGE', `certificate ${certificateFile} and key ${keyFile} cannot be used`, { cause });
  }
  throw new SealpodError('USAGE', `certificate ${certificateFile} and key ${keyFile} do not belong together`);
}

/** Mounted secrets are replaced by links, which only a look at the files themselves notices. */
function watchPair(config: WebhookConfig, server: Server, log: Log): () => void {
  const files = [config.certificateFile, config.keyFile];
  const reload = (): void => {
    try {
      const pair = readPair(config);
      server.setSecureContext(pair);
      log.info({ until: new X509Certificate(pair.cert).validTo }, 'certificate read again');
    } catch (thrown) {
      log.warn({ error: asSealpodError(thrown).message }, 'new certificate refused, the one before stays');
    }
  };
  for (const file of files) watchFile(file, { interval: config.reloadIntervalMs, persistent: false }, reload);
  return () => {
    for (const file of files) unwatchFile(file, reload);
  };
}
