import { Server as HttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { AttestationService } from '@sealpod/attestation-service/service';
import { SealpodError } from '@sealpod/protocol/errors';
import { createRegoEngine } from '@sealpod/rego';
import { openStorage } from '@sealpod/storage';
import { destination, type Logger, pino } from 'pino';
import { createApplication } from './admin/api.ts';
import { Authenticator } from './admin/authenticator.ts';
import { openAttestationService } from './attestation.ts';
import type { KbsConfig } from './config.ts';
import type { Parts } from './parts.ts';
import { TokenVerifier } from './rcar/token-verifier.ts';
import { createListener } from './server/listener.ts';
import { KbsMetrics } from './server/metrics.ts';
import { RateLimiter } from './server/rate-limit.ts';
import { loadTls, type TlsMaterial } from './server/tls.ts';

export { type KbsConfig, loadKbsConfig, parseKbsConfig } from './config.ts';

/** What a caller may put in the place of what the configuration names; for tests and for running in one process. */
export interface KbsDependencies {
  readonly attestation?: AttestationService;
  readonly log?: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** A key broker that listens. */
export interface Kbs {
  /** E.g. `https://127.0.0.1:8080`. */
  readonly address: string;
  /** The certificate that guests pin; absent with `insecureHttp`. */
  readonly certificatePem: string | undefined;
  readonly certificatePath: string | undefined;
  /** Reads certificate and key again; connections that are open stay as they are. */
  reloadTls(): Promise<void>;
  /** Stops accepting, lets running requests end (at most `graceMs`, default 5000), then closes everything it opened. */
  close(graceMs?: number): Promise<void>;
}

function makeLog(config: KbsConfig): Logger {
  return pino({ level: config.logLevel, base: { part: 'kbs' } }, destination({ fd: 2, sync: true }));
}

function addressOf(config: KbsConfig, bound: AddressInfo): string {
  const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  return `${config.insecureHttp ? 'http' : 'https'}://${host}:${bound.port}`;
}

/**
 * Starts a key broker. Throws `USAGE` for a configuration it cannot run with, `STORAGE` where the data directory cannot
 * be used, `NETWORK` where it cannot listen.
 */
export async function createKbs(config: KbsConfig, dependencies: KbsDependencies = {}): Promise<Kbs> {
  const now = dependencies.now ?? Date.now;
  const log = dependencies.log ?? makeLog(config);
  // In the order of opening; closed in the opposite one.
  const opened: (() => Promise<void>)[] = [];
  const closeAll = async () => {
    for (const close of opened.splice(0).reverse()) await close();
  };
  try {
    const authenticator = new Authenticator(config.admin.keys, now);
    const { maxDatabaseBytes } = config.limits;
    const path = join(config.dataDirectory, 'kbs.db');
    const storage = await openStorage(
      maxDatabaseBytes === 0 ? { path, now } : { path, now, maximumBytes: maxDatabaseBytes },
    );
    opened.push(() => storage.close());
    const tls = config.insecureHttp ? undefined : await loadTls(config, now());
    const rego = createRegoEngine();
    opened.push(() => rego.close());
    const given = dependencies.attestation;
    const attestation = given ?? (await openAttestationService(config.attestationService, { storage, rego, now }));
    if (given === undefined) opened.push(() => attestation.close());
    const tokens = new TokenVerifier(() => attestation.jwks(), now);
    let open = 0;
    const metrics = new KbsMetrics(() => open);
    const parts: Parts = { config, storage, attestation, rego, tokens, authenticator, metrics, log, now };
    const server = createListener(parts, new RateLimiter(config.limits, now), createApplication(parts), tls);
    server.on('connection', (socket) => {
      open += 1;
      socket.once('close', () => {
        open -= 1;
      });
    });
    await listen(server, config);
    const bound = server.address();
    if (bound === null || typeof bound === 'string') throw new SealpodError('INTERNAL', 'the server has no address');
    let current: TlsMaterial | undefined = tls;
    return {
      address: addressOf(config, bound),
      get certificatePem() {
        return current?.certificate;
      },
      certificatePath: tls?.certificatePath,
      async reloadTls() {
        if (!(server instanceof HttpsServer)) return;
        const next = await loadTls(config, now());
        server.setSecureContext({ cert: next.certificate, key: next.privateKey, minVersion: 'TLSv1.2' });
        current = next;
      },
      async close(graceMs = 5000) {
        await closeServer(server, graceMs);
        await closeAll();
      },
    };
  } catch (thrown) {
    await closeAll();
    throw thrown;
  }
}

type ListeningServer = ReturnType<typeof createListener>;

function listen(server: ListeningServer, config: KbsConfig): Promise<void> {
  const { host, port } = config.listen;
  return new Promise((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new SealpodError('NETWORK', `cannot listen on ${host}:${port}: ${cause.message}`, { cause })),
    );
    server.listen({ host, port, backlog: 1024 }, resolve);
  });
}

function closeServer(server: ListeningServer, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const force = setTimeout(() => server.closeAllConnections(), graceMs);
    // A connection that was in use falls idle after its answer, and would be kept alive.
    const idle = setInterval(() => server.closeIdleConnections(), 50);
    server.close(() => {
      clearTimeout(force);
      clearInterval(idle);
      resolve();
    });
    server.closeIdleConnections();
  });
}
