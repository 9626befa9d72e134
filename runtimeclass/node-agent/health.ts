import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { readMetrics, readTpmAuthority } from './events/index.ts';
import type { NodeAgentMetrics } from './metrics.ts';
import { type AgentStatus, describeStatus } from './status.ts';

export interface HealthOptions {
  readonly address: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly status: () => AgentStatus;
  readonly metrics: NodeAgentMetrics;
  /** Where the adaptor tells its metrics, which follow the agent's own, and the authority of its machines' TPMs. */
  readonly adaptorSocket?: string;
  /** A look that lasts longer hangs: then the agent is not alive. In milliseconds. */
  readonly longestLookMs: number;
}

/**
 * Serves `/healthz`, `/readyz` and `/metrics` to kubelet and Prometheus, and `/tpm-authority` to whoever is to trust the
 * machines of this node. Nothing that is sent is read.
 */
export async function serveHealth(options: HealthOptions): Promise<Server> {
  const startedAt = Date.now();
  const server = createServer({ requestTimeout: 5000, maxHeaderSize: 8192 }, (request, response) => {
    const answer = (code: number, text: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(code, { 'content-type': type, 'cache-control': 'no-store' }).end(text);
    };
    if (request.method !== 'GET') return answer(405, 'only GET\n');
    const status = options.status();
    switch (request.url) {
      case '/healthz': {
        const age = Date.now() - (status.lookedAt ?? startedAt);
        if (age <= options.longestLookMs) return answer(200, 'alive\n');
        return answer(503, `the node was not looked at for ${Math.round(age / 1000)} s\n`);
      }
      case '/readyz':
        return answer(status.ready ? 200 : 503, describeStatus(status));
      case '/metrics':
        allMetrics(options).then(
          (text) => answer(200, text, options.metrics.registry.contentType),
          () => answer(500, 'metrics cannot be collected\n'),
        );
        return;
      case '/tpm-authority':
        tpmAuthority(options).then(
          (certificates) => answer(200, certificates),
          (thrown: unknown) => answer(404, `no authority of TPMs is known: ${asSealpodError(thrown).message}\n`),
        );
        return;
      default:
        return answer(404, 'try /healthz, /readyz, /metrics or /tpm-authority\n');
    }
  });
  server.maxConnections = 64;
  server.listen({ host: options.address, port: options.port });
  await once(server, 'listening');
  return server;
}

async function tpmAuthority({ adaptorSocket }: HealthOptions): Promise<string> {
  if (adaptorSocket === undefined) throw new SealpodError('NOT_FOUND', 'this node has no adaptor');
  return readTpmAuthority(adaptorSocket);
}

async function allMetrics({ metrics, adaptorSocket }: HealthOptions): Promise<string> {
  const own = await metrics.registry.metrics();
  if (adaptorSocket === undefined) return own;
  // An adaptor that does not answer is told by the agent's own metrics, which must not go with it.
  const adaptor = await readMetrics([adaptorSocket]).catch(() => '');
  return `${own.trimEnd()}\n${adaptor}`;
}
