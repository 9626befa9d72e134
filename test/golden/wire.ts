import { connect, createServer, type Server, type Socket } from 'node:net';

/*
 * Protobuf and ttrpc by hand, from the field tables of the protocols: nothing here is shared with the code under test.
 *
 * ttrpc: 10-byte header (length, stream, type, flags); Request{service=1, method=2, payload=3, timeout_nano=4};
 * Response{status=1{code=1, message=2}, payload=2}.
 */

function varint(value: number | bigint): Buffer {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  return Buffer.from([...out, Number(rest)]);
}

/** A length-delimited field: string, bytes or message. */
export function field(number: number, ...parts: readonly (string | Uint8Array)[]): Buffer {
  const value = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
  return Buffer.concat([varint(number * 8 + 2), varint(value.length), value]);
}

/** A number or boolean; proto3 leaves out a zero. */
export function number(field_: number, value: number | bigint | boolean): Buffer {
  if (BigInt(value) === 0n) return Buffer.alloc(0);
  return Buffer.concat([varint(field_ * 8), varint(BigInt(value))]);
}

/** A repeated string. */
export const texts = (field_: number, values: readonly string[]): Buffer =>
  Buffer.concat(values.map((value) => field(field_, value)));

/** A map<string, string>: entries with key = 1 and value = 2. */
export const map = (field_: number, entries: Readonly<Record<string, string>>): Buffer =>
  Buffer.concat(Object.entries(entries).map(([key, value]) => field(field_, field(1, key), field(2, value))));

export const message = (...fields: readonly Uint8Array[]): Buffer => Buffer.concat(fields);

/** All fields of a message: length-delimited ones as bytes, numbers as numbers. */
export function fieldsOf(of: Buffer): { readonly number: number; readonly value: Buffer | bigint }[] {
  const found: { number: number; value: Buffer | bigint }[] = [];
  let at = 0;
  const next = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = of[at++];
      if (byte === undefined) throw new Error('the message ends within a number');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < of.length) {
    const tag = Number(next());
    if (tag % 8 === 0) found.push({ number: tag >> 3, value: next() });
    else if (tag % 8 === 2) {
      const length = Number(next());
      found.push({ number: tag >> 3, value: of.subarray(at, at + length) });
      at += length;
    } else throw new Error(`wire type ${tag % 8} of field ${tag >> 3}`);
  }
  return found;
}

/** The first length-delimited field of that number; empty where there is none. */
export function bytesOf(of: Buffer, wanted: number): Buffer {
  const value = fieldsOf(of).find((item) => item.number === wanted)?.value;
  return Buffer.isBuffer(value) ? value : Buffer.alloc(0);
}

export function numberOf(of: Buffer, wanted: number): bigint {
  const value = fieldsOf(of).find((item) => item.number === wanted)?.value;
  return typeof value === 'bigint' ? value : 0n;
}

export interface RawFrame {
  readonly stream: number;
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

function frame(stream: number, type: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(10);
  header.writeUInt32BE(body.length, 0);
  header.writeUInt32BE(stream, 4);
  header[8] = type;
  return Buffer.concat([header, body]);
}

function readFrames(socket: Socket, hear: (heard: RawFrame) => unknown): void {
  let buffer = Buffer.alloc(0);
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    buffer = Buffer.concat([buffer, chunk]);
    while (buffer.length >= 10 && buffer.length >= 10 + buffer.readUInt32BE(0)) {
      const end = 10 + buffer.readUInt32BE(0);
      const body = Buffer.from(buffer.subarray(10, end));
      hear({ stream: buffer.readUInt32BE(4), type: buffer[8] ?? -1, flags: buffer[9] ?? -1, body });
      buffer = buffer.subarray(end);
    }
  });
}

/** A client that puts frames on a socket as a shim does, and gives back the frames that answer them. */
export class RawCaller {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (frame: RawFrame) => void>();
  #stream = -1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    readFrames(socket, (heard) => this.#waiting.get(heard.stream)?.(heard));
  }

  static connect(path: string): Promise<RawCaller> {
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => resolve(new RawCaller(socket)));
      socket.once('error', reject);
    });
  }

  /** The whole answer to a call. */
  call(service: string, method: string, payload: Uint8Array, timeoutNano = 60_000_000_000n): Promise<RawFrame> {
    this.#stream += 2;
    const stream = this.#stream;
    const answer = new Promise<RawFrame>((resolve) => this.#waiting.set(stream, resolve));
    const request = message(field(1, service), field(2, method), field(3, payload), number(4, timeoutNano));
    this.#socket.write(frame(stream, 1, request));
    return answer;
  }

  close(): void {
    this.#socket.destroy();
  }
}

export interface RecordedCall {
  readonly method: string;
  readonly payload: Buffer;
  readonly timeoutNano: bigint;
  readonly frame: RawFrame;
}

type Answer = Buffer | ((payload: Buffer) => Buffer | undefined | Promise<Buffer>);

/** A server that records the frames it gets. A method without an answer is never answered. */
export function recordCalls(
  path: string,
  calls: RecordedCall[],
  answers: Readonly<Record<string, Answer>>,
): Promise<Server> {
  const server = createServer((socket) =>
    readFrames(socket, async (heard) => {
      const method = `${bytesOf(heard.body, 1)}/${bytesOf(heard.body, 2)}`;
      const payload = bytesOf(heard.body, 3);
      calls.push({ method, payload, timeoutNano: numberOf(heard.body, 4), frame: heard });
      const answer = answers[method];
      const response = typeof answer === 'function' ? await answer(payload) : answer;
      // As Kata's agent (Rust) answers: a status that is there and empty.
      if (response !== undefined) socket.write(frame(heard.stream, 2, message(field(1), field(2, response))));
    }),
  );
  return new Promise((resolve) => server.listen(path, () => resolve(server)));
}
