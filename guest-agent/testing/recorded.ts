import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { vectorPath } from '@sealpod/protocol/testing/vectors';

/** Where the recorded exchanges of the real programs are, outside of this repository. */
const folder = vectorPath('recorded');

/** One call on a socket, in bytes, and what the real program answered. */
export interface RecordedCall {
  readonly label: string;
  readonly request: Buffer;
  readonly method: string;
  readonly status: number;
  readonly message: string;
  /** Of the response message; absent where the call failed. */
  readonly payload: Buffer;
}

interface Frame {
  readonly dir: string;
  readonly hex: string;
  readonly request?: { readonly method: string };
  readonly response?: {
    readonly status: { readonly code: number; readonly message: string };
    readonly payload_hex?: string;
    readonly payload_at?: { readonly byte_offset_in_frame: number; readonly length: number };
  };
}

interface RecordedTtrpc {
  readonly resources?: Readonly<Record<string, { readonly plain_utf8?: string; readonly plain_base64?: string }>>;
  readonly steps: readonly {
    readonly label: string;
    readonly connections: readonly { readonly socket: string; readonly frames: readonly Frame[] }[];
  }[];
}

/** Path of a recording, or why it cannot be used. */
export function recording(name: string): { readonly path: string; readonly missing?: string } {
  const path = join(folder, `${name}.json`);
  return existsSync(path) ? { path } : { path, missing: `${path} is absent` };
}

/** The unary calls that a recording made on one of the sockets. */
export function recordedCalls(path: string, socket: 'attestation-agent' | 'cdh'): RecordedCall[] {
  const { steps } = JSON.parse(readFileSync(path, 'utf8')) as RecordedTtrpc;
  return steps.flatMap(({ label, connections }) =>
    connections
      .filter((connection) => connection.socket === socket && connection.frames.length === 2)
      .map(({ frames: [request, response] }) => ({
        label,
        request: Buffer.from(request?.hex ?? '', 'hex'),
        method: request?.request?.method ?? '',
        status: response?.response?.status.code ?? -1,
        message: response?.response?.status.message ?? '',
        payload: payloadOf(response),
      })),
  );
}

function payloadOf(frame: Frame | undefined): Buffer {
  const { payload_hex, payload_at } = frame?.response ?? {};
  if (payload_hex !== undefined) return Buffer.from(payload_hex, 'hex');
  if (payload_at === undefined) return Buffer.alloc(0);
  const { byte_offset_in_frame, length } = payload_at;
  return Buffer.from(frame?.hex ?? '', 'hex').subarray(byte_offset_in_frame, byte_offset_in_frame + length);
}

/** The resources that the recorded key broker held. */
export function recordedResources(path: string): Map<string, Buffer> {
  const { resources = {} } = JSON.parse(readFileSync(path, 'utf8')) as RecordedTtrpc;
  return new Map(
    Object.entries(resources).map(([name, { plain_utf8, plain_base64 }]) => [
      name,
      plain_utf8 === undefined ? Buffer.from(plain_base64 ?? '', 'base64') : Buffer.from(plain_utf8),
    ]),
  );
}

/** Sends the bytes of one ttrpc frame and resolves to the bytes of the frame that comes back. */
export function exchangeFrame(socketPath: string, frame: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath, () => socket.write(frame));
    let received = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 10 || received.length < 10 + received.readUInt32BE()) return;
      socket.destroy();
      resolve(received);
    });
    socket.once('error', reject);
    socket.once('end', () => reject(new Error('the connection was closed')));
  });
}
