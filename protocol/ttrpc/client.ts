import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodClientStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import type { CallOptions, RawStream, TtrpcConnection } from './connection.ts';
import { Status, TtrpcError } from './status.ts';

/** The methods of a service, by their local names. */
export type Client<S extends DescService> = { [P in keyof S['method']]: ClientMethod<S['method'][P]> };

type ClientMethod<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => Promise<MessageShape<O>>
        : M extends DescMethodBiDiStreaming<infer I, infer O>
          ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
          : never;

type AnyMethod = (request: unknown, options?: CallOptions) => unknown;

/** A typed client. Its methods throw TtrpcError. */
export function createClient<S extends DescService>(service: S, connection: TtrpcConnection): Client<S> {
  const client: Record<string, AnyMethod> = {};
  for (const method of service.methods) client[method.localName] = clientMethod(method, connection);
  return client as Client<S>;
}

function clientMethod(method: DescMethod, connection: TtrpcConnection): AnyMethod {
  const service = method.parent.typeName;
  const encode = (message: unknown) =>
    toBinary(method.input, create(method.input, message as MessageInitShape<DescMessage>));
  const open = (requests: unknown, options?: CallOptions) => {
    const clientStreaming = method.methodKind !== 'server_streaming';
    const shape = { clientStreaming, serverStreaming: method.methodKind !== 'client_streaming' };
    const stream = connection.openStream(
      service,
      method.name,
      shape,
      clientStreaming ? undefined : encode(requests),
      options,
    );
    if (clientStreaming) sendAll(stream, requests as AsyncIterable<unknown>, encode);
    return stream;
  };
  switch (method.methodKind) {
    case 'unary':
      return async (request, options) =>
        decode(method.output, await connection.call(service, method.name, encode(request), options));
    case 'client_streaming':
      return async (requests, options) => {
        for await (const message of open(requests, options).messages) return decode(method.output, message);
        throw new TtrpcError(Status.internal, `${service}/${method.name} ended without a response`);
      };
    default:
      return async function* (request, options) {
        for await (const message of open(request, options).messages) yield decode(method.output, message);
      };
  }
}

/** Sends what the caller produces; where that fails, the reader of the call's messages gets the reason. */
async function sendAll(
  stream: RawStream,
  requests: AsyncIterable<unknown>,
  encode: (message: unknown) => Uint8Array,
): Promise<void> {
  try {
    for await (const request of requests) await stream.send(encode(request));
    stream.closeSend();
  } catch (error) {
    stream.abort(error);
  }
}

function decode<O extends DescMessage>(schema: O, bytes: Uint8Array): MessageShape<O> {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw new TtrpcError(Status.internal, `the response is not a ${schema.typeName}`, { cause });
  }
}
