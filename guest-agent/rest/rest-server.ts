import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, decodeBase64Url, parseJson, stringMember } from '@sealpod/protocol/json';
import type { AttestationAgent } from '../attestation-agent/attestation-agent.ts';
import { tokenDocument } from '../attestation-agent/attestation-service.ts';
import type { DataHub } from '../data-hub/data-hub.ts';

/** Which routes are served; upstream's `--features`. */
export type RestFeatures = 'resource' | 'attestation' | 'all';

export interface RestServerOptions {
  readonly attestationAgent: AttestationAgent;
  readonly dataHub: DataHub;
  readonly features: RestFeatures;
  /** Shown by `/info`. */
  readonly version: string;
  /** Upstream's address is 127.0.0.1:8006. */
  readonly port?: number;
}

export interface RestServer {
  readonly port: number;
  close(): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly body: Buffer | string;
  readonly headers?: Readonly<Record<string, string>>;
}

const maxBodyBytes = 64 * 1024;
const octets = { 'content-type': 'application/octet-stream' };
const json = { 'content-type': 'application/json' };
const badRequest: Answer = { status: 400, body: 'BAD REQUEST' };
const forbidden: Answer = { status: 403, body: 'Forbidden' };
const notFound: Answer = { status: 404, body: 'URL NOT FOUND' };

/**
 * The REST API for workloads (api-server-rest): resources, tokens and evidence over plain HTTP on the loopback interface,
 * which all containers of the pod share and nobody else reaches.
 *
 * A failure is answered with upstream's constant body; reason code and correlation id stand in the headers
 * `x-reason-code` and `x-correlation-id`. Unlike upstream, percent-encoded and dot segments of a resource path are refused.
 */
export async function startRestServer(options: RestServerOptions): Promise<RestServer> {
  const server: Server = createServer({ requestTimeout: 60_000, headersTimeout: 10_000 }, (request, response) => {
    void answer(options, request).then((result) => send(response, result));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 8006, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Whether the peer is on the loopback interface. */
export function isLoopback(address: string | undefined): boolean {
  return address !== undefined && /^(?:(?:::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1)$/.test(address);
}

/**
 * Whether a request names this server by an address or name of the loopback interface, or not at all. A browser or fetcher
 * in the pod that was led here by a foreign name (DNS rebinding) sends that name, and would hand the answer to its owner.
 */
export function isLocalHost(host: string | undefined): boolean {
  return host === undefined || /^(?:127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost|\[::1\])(?::\d{1,5})?$/i.test(host);
}

function send(response: ServerResponse, { status, body, headers }: Answer): void {
  response.writeHead(status, { ...headers, 'content-length': String(Buffer.byteLength(body)) }).end(body);
}

async function answer(options: RestServerOptions, request: IncomingMessage): Promise<Answer> {
  if (!isLoopback(request.socket.remoteAddress)) return forbidden;
  if (!isLocalHost(request.headers.host)) return forbidden;
  try {
    return await route(options, request);
  } catch (thrown) {
    const error = asSealpodError(thrown);
    const { correlationId } = error.detail;
    return {
      status: 500,
      body: 'ttrpc request error',
      headers: {
        'x-reason-code': error.code,
        ...(correlationId === undefined ? {} : { 'x-correlation-id': correlationId }),
      },
    };
  }
}

async function route(options: RestServerOptions, request: IncomingMessage): Promise<Answer> {
  const target = request.url ?? '/';
  const mark = target.indexOf('?');
  const path = mark < 0 ? target : target.slice(0, mark);
  const query = new URLSearchParams(mark < 0 ? '' : target.slice(mark + 1));
  if (path === '/info') return info(options, request.method);
  if (path.startsWith('/cdh/resource/')) {
    if (options.features === 'attestation') return { status: 404, body: 'Resource Feature Not Enabled' };
    // Upstream does not look at the method, and drops the query.
    const resource = await options.dataHub.getResource(`kbs://${path.slice('/cdh/resource'.length)}`);
    return { status: 200, body: resource, headers: octets };
  }
  if (!['/aa/token', '/aa/evidence', '/aa/additional-evidence', '/aa/aael'].includes(path)) return notFound;
  if (options.features === 'resource') return { status: 404, body: 'Attestation Feature Not Enabled' };
  if (request.method !== (path === '/aa/aael' ? 'POST' : 'GET')) return notFound;
  if (path === '/aa/token') return await token(options, query);
  if (path === '/aa/aael') return await eventLogEntry(request);
  const data = runtimeData(query);
  if (data === undefined) return badRequest;
  const body = path === '/aa/evidence' ? await options.attestationAgent.evidence(data) : '';
  return { status: 200, body, headers: octets };
}

function info({ attestationAgent, features, version }: RestServerOptions, method: string | undefined): Answer {
  if (method !== 'GET') return { status: 405, body: 'Method Not Allowed' };
  const tee = features === 'resource' ? undefined : attestationAgent.tee;
  return { status: 200, body: JSON.stringify({ version, tee, feature: features }), headers: json };
}

async function token({ attestationAgent }: RestServerOptions, query: URLSearchParams): Promise<Answer> {
  const type = query.getAll('token_type').at(-1);
  if (type === undefined) return badRequest;
  return { status: 200, body: await tokenDocument(attestationAgent, type), headers: octets };
}

/** The bytes of `runtime_data`: UTF-8 as they are, or URL-safe base64 without padding; undefined where it is neither. */
function runtimeData(query: URLSearchParams): Buffer | undefined {
  const text = query.getAll('runtime_data').at(-1);
  const encoding = query.getAll('encoding').at(-1);
  if (text === undefined) return undefined;
  if (encoding === undefined) return Buffer.from(text);
  if (encoding !== 'base64') return undefined;
  try {
    return decodeBase64Url(text, { what: 'runtime_data' });
  } catch (error) {
    if (error instanceof SealpodError) return undefined;
    throw error;
  }
}

/** Runtime measurements are not recorded; the answer is upstream's for a log that is switched off. */
async function eventLogEntry(request: IncomingMessage): Promise<Answer> {
  try {
    const entry = asJsonObject(parseJson(await readBody(request), { what: 'entry' }), 'entry');
    for (const name of ['domain', 'operation', 'content']) stringMember(entry, name);
  } catch (error) {
    if (!(error instanceof SealpodError)) throw error;
    return { status: 500, body: `Illegal AAEL eventry format: ${error.message}` };
  }
  const body = '{"success":"false","message": "Attestation Agent does not enable eventlog recording"}';
  return { status: 200, body, headers: json };
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBodyBytes) throw new SealpodError('REQUEST_TOO_LARGE', `the body exceeds ${maxBodyBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
