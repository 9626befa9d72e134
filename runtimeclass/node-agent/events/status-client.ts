import { request } from 'node:http';
import { SealpodError } from '@sealpod/protocol/errors';
import type { SandboxList, SandboxStatus } from '@sealpod/protocol/status';

const timeoutMs = 10_000;
const maxAnswerBytes = 16 << 20;

/**
 * How the pod VMs of a node started, from the status socket of its adaptor.
 *
 * @throws SealpodError HYPERVISOR where the adaptor does not answer
 */
export async function readSandboxes(statusSocket: string): Promise<readonly SandboxStatus[]> {
  const body = await getText(statusSocket, '/v1/sandboxes');
  try {
    return (JSON.parse(body) as SandboxList).sandboxes;
  } catch (cause) {
    throw new SealpodError('HYPERVISOR', `the answer on ${statusSocket} is no list of sandboxes`, { cause });
  }
}

/** The metrics (Prometheus text) of programs that serve `/metrics` on unix sockets, one after the other. */
export async function readMetrics(sockets: readonly string[]): Promise<string> {
  const texts = await Promise.all(sockets.map((socket) => getText(socket, '/metrics')));
  return texts.map((text) => (text.endsWith('\n') ? text : `${text}\n`)).join('');
}

/** Certificates (PEM) of the authority of machines' TPMs, as an adaptor tells them. @throws SealpodError HYPERVISOR where it tells none */
export function readTpmAuthority(socket: string): Promise<string> {
  return getText(socket, '/v1/tpm-authority');
}

async function getText(socketPath: string, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
  const outgoing = request({ socketPath, path, timeout: timeoutMs, agent: false }, (response) => {
    const chunks: Buffer[] = [];
    let size = 0;
    response.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > maxAnswerBytes) outgoing.destroy(new Error(`the answer exceeds ${maxAnswerBytes} bytes`));
      chunks.push(chunk);
    });
    response.once('error', reject);
    response.once('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
  });
  outgoing.once('timeout', () => outgoing.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
  outgoing.once('error', reject);
  outgoing.end();
  const { status, body } = await promise.catch((cause: unknown) => {
    throw new SealpodError('HYPERVISOR', `nobody answers on ${socketPath}`, {
      cause,
      fix: 'see whether the adaptor runs, and its log',
    });
  });
  if (status === 200) return body;
  throw new SealpodError('HYPERVISOR', `${socketPath} answers ${path} with status ${status}`);
}
