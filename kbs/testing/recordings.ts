import { existsSync, readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { vectorPath } from '@sealpod/protocol/testing/vectors';

/** Where recorded exchanges of the upstream programs are kept, outside of this repository. */
const root = vectorPath();

export interface RecordedExchange {
  /** Its place in the recording, as `#3`, where it has no name: what a command-line client sent. */
  readonly label: string;
  readonly request: {
    readonly method: string;
    readonly target: string;
    readonly headers: readonly (readonly [string, string])[];
    readonly body?: Buffer;
  };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
  };
}

interface RawMessage {
  readonly method?: string;
  readonly target?: string;
  readonly status?: number;
  readonly headers?: Record<string, string> | [string, string][];
  readonly body_utf8?: string;
  readonly body_base64?: string;
  readonly body_repeat?: { readonly byte: number | string; readonly count: number };
}

function headersOf(message: RawMessage): [string, string][] {
  return Array.isArray(message.headers) ? message.headers : Object.entries(message.headers ?? {});
}

function bodyOf(message: RawMessage): Buffer | undefined {
  if (message.body_utf8 !== undefined) return Buffer.from(message.body_utf8);
  if (message.body_base64 !== undefined) return Buffer.from(message.body_base64, 'base64');
  return undefined;
}

/** Where a recording would be read from. */
export function recordingPath(name: string): string {
  return join(root, 'recorded', `${name}.json`);
}

export interface Recording {
  /** Seconds since the epoch. */
  readonly recordedAt: number;
  readonly exchanges: readonly RecordedExchange[];
}

/** A recording, with the exchanges whose bodies are kept whole; undefined where it is not on this machine. */
export function readRecording(name: string): Recording | undefined {
  const path = recordingPath(name);
  if (!existsSync(path)) return undefined;
  const file = JSON.parse(readFileSync(path, 'utf8')) as {
    recorded_at: number;
    exchanges: { label?: string; request: RawMessage; response: RawMessage }[];
  };
  const exchanges = file.exchanges.flatMap(({ label, request, response }, index) => {
    if (request.target === undefined || request.method === undefined || response.status === undefined) return [];
    if (request.body_repeat !== undefined || 'body_parts' in request) return [];
    const body = bodyOf(request);
    const headers = Object.fromEntries(headersOf(response).map(([header, value]) => [header.toLowerCase(), value]));
    const sent = { method: request.method, target: request.target, headers: headersOf(request) };
    const received = { status: response.status, headers, body: bodyOf(response)?.toString('utf8') ?? '' };
    return [
      { label: label ?? `#${index}`, request: body === undefined ? sent : { ...sent, body }, response: received },
    ];
  });
  return { recordedAt: Number(file.recorded_at), exchanges };
}

export interface Replayed {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** Sends a recorded request again, with some headers replaced (undefined: left out). */
export function replay(
  address: string,
  { method, target, headers, body }: RecordedExchange['request'],
  replaced: Readonly<Record<string, string | undefined>>,
): Promise<Replayed> {
  const url = new URL(address);
  const sent: Record<string, string> = {};
  const dropped = ['host', 'connection', 'content-length', 'transfer-encoding', 'expect'];
  for (const [name, value] of headers) if (!dropped.includes(name.toLowerCase())) sent[name.toLowerCase()] = value;
  for (const [name, value] of Object.entries(replaced)) {
    if (value === undefined) delete sent[name];
    else sent[name] = value;
  }
  if (body !== undefined) sent['content-length'] = String(body.length);
  return new Promise((resolve, reject) => {
    const options = { host: url.hostname, port: url.port, path: target, method, headers: sent, agent: false as const };
    const request = httpRequest(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString('utf8'),
        });
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}
