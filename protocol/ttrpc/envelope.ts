import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { RequestSchema, ResponseSchema } from '../gen/ttrpc/envelope_pb.ts';
import { maxMessageBytes } from './frame.ts';
import { Status, TtrpcError } from './status.ts';

/** A request without its stream: what is asked of which method, and how long it may take. */
export interface RequestEnvelope {
  readonly service: string;
  readonly method: string;
  readonly payload: Uint8Array;
  /** Milliseconds; absent where the call may take for ever. */
  readonly timeoutMs?: number | undefined;
  readonly metadata: Record<string, string[]>;
}

/** Encodes a request. Throws `resourceExhausted` where it would exceed the message limit. */
export function encodeRequest(request: RequestEnvelope): Uint8Array {
  const bytes = toBinary(
    RequestSchema,
    create(RequestSchema, {
      service: request.service,
      method: request.method,
      payload: request.payload,
      timeoutNano: request.timeoutMs === undefined ? 0n : BigInt(Math.ceil(request.timeoutMs * 1e6)),
      metadata: Object.entries(request.metadata).flatMap(([key, values]) => values.map((value) => ({ key, value }))),
    }),
  );
  checkLength(bytes.length);
  return bytes;
}

/** Decodes a request. Throws `invalidArgument`. A timeout that is not positive counts as none. */
export function decodeRequest(bytes: Uint8Array): RequestEnvelope {
  try {
    const request = fromBinary(RequestSchema, bytes);
    const metadata: Record<string, string[]> = Object.create(null);
    for (const { key, value } of request.metadata) {
      metadata[key] ??= [];
      metadata[key].push(value);
    }
    return {
      service: request.service,
      method: request.method,
      payload: request.payload,
      timeoutMs: request.timeoutNano > 0n ? Math.ceil(Number(request.timeoutNano) / 1e6) : undefined,
      metadata,
    };
  } catch (cause) {
    throw new TtrpcError(Status.invalidArgument, cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** Field number of `timeout_nano` in the envelope. */
const timeoutField = 4;

/**
 * The limit of a request, without decoding or copying the rest of it; undefined where it has none.
 * Throws `invalidArgument` where the bytes are no protobuf message.
 */
export function requestTimeoutMs(bytes: Uint8Array): number | undefined {
  try {
    const reader = new BinaryReader(bytes);
    let nanoseconds = 0n;
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      if (field === timeoutField && type === WireType.Varint) nanoseconds = BigInt(reader.int64());
      else reader.skip(type, field);
    }
    return nanoseconds > 0n ? Math.ceil(Number(nanoseconds) / 1e6) : undefined;
  } catch (cause) {
    throw new TtrpcError(Status.invalidArgument, cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** The same request with another limit: of a field that stands twice the last one holds. */
export function withTimeout(bytes: Uint8Array, timeoutMs: number): Uint8Array {
  const field = new BinaryWriter()
    .tag(timeoutField, WireType.Varint)
    .int64(BigInt(Math.ceil(timeoutMs * 1e6)))
    .finish();
  checkLength(bytes.length + field.length);
  return Buffer.concat([bytes, field]);
}

/**
 * Encodes a successful response. Its status is present and empty, as the Rust implementation sends it.
 * Throws `resourceExhausted` where it would exceed the message limit.
 */
export function encodeResponse(payload: Uint8Array): Uint8Array {
  const bytes = toBinary(ResponseSchema, create(ResponseSchema, { status: {}, payload }));
  checkLength(bytes.length);
  return bytes;
}

/** Encodes a failed response; an overlong message is cut. */
export function encodeErrorResponse(error: TtrpcError): Uint8Array {
  const message = error.message.length > 64 * 1024 ? `${error.message.slice(0, 64 * 1024)}…` : error.message;
  // A failure must never read as success, whatever its thrower put in.
  const code = Number.isInteger(error.status) && error.status !== Status.ok ? error.status : Status.unknown;
  return toBinary(ResponseSchema, create(ResponseSchema, { status: { code, message: message.toWellFormed() } }));
}

/** The payload of a response. Throws the TtrpcError that it carries. */
export function decodeResponse(bytes: Uint8Array): Uint8Array {
  let response: ReturnType<typeof parse>;
  try {
    response = parse(bytes);
  } catch (cause) {
    throw new TtrpcError(Status.internal, 'the response is not a ttrpc response', { cause });
  }
  const { status } = response;
  if (status && status.code !== Status.ok) {
    throw new TtrpcError(status.code, status.message);
  }
  return response.payload;
}

const parse = (bytes: Uint8Array) => fromBinary(ResponseSchema, bytes);

/** The refusal of a message that is too long; the text is that of the Rust implementation. */
export function tooLong(length: number, status: number): TtrpcError {
  return new TtrpcError(status, `message length ${length} exceed maximum message size of ${maxMessageBytes}`);
}

function checkLength(length: number): void {
  if (length > maxMessageBytes) throw tooLong(length, Status.resourceExhausted);
}
