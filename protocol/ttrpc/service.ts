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
import { Status, TtrpcError } from './status.ts';

/** What a handler learns of its call besides the request. */
export interface RequestContext {
  /** Aborted when the deadline has passed or the client is gone; nobody waits for the answer then. */
  readonly signal: AbortSignal;
  /** Milliseconds that the client allowed, from the request's arrival; absent without a limit. */
  readonly timeoutMs?: number | undefined;
  readonly metadata: Record<string, string[]>;
  readonly service: string;
  readonly method: string;
}

/** The handlers of a service, by the methods' local names. */
export type ServiceImplementation<S extends DescService> = {
  [P in keyof S['method']]: MethodImplementation<S['method'][P]>;
};

type Answer<O extends DescMessage> = Promise<MessageInitShape<O>> | MessageInitShape<O>;

type MethodImplementation<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>, context: RequestContext) => Answer<O>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>, context: RequestContext) => AsyncIterable<MessageInitShape<O>>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageShape<I>>, context: RequestContext) => Answer<O>
        : M extends DescMethodBiDiStreaming<infer I, infer O>
          ? (requests: AsyncIterable<MessageShape<I>>, context: RequestContext) => AsyncIterable<MessageInitShape<O>>
          : never;

/** Answers a unary call in bytes; a relay takes every call this way. */
export type RawHandler = (
  service: string,
  method: string,
  payload: Uint8Array,
  context: RequestContext,
) => Promise<Uint8Array>;

type Handler = (request: unknown, context: RequestContext) => unknown;

/** A method as a connection runs it: in bytes. Where a side is no stream, exactly one message passes there. */
export interface BoundMethod {
  readonly clientStreaming: boolean;
  readonly serverStreaming: boolean;
  /** `request` is the one message, or an iterable of them where the client streams. */
  run(request: Uint8Array | AsyncIterable<Uint8Array>, context: RequestContext): AsyncIterable<Uint8Array>;
}

/** Binds a typed handler to bytes. */
export function bindMethod(method: DescMethod, handler: Handler): BoundMethod {
  const clientStreaming = method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming';
  const serverStreaming = method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming';
  const encode = (message: unknown) =>
    toBinary(method.output, create(method.output, message as MessageInitShape<DescMessage>));
  return {
    clientStreaming,
    serverStreaming,
    async *run(request, context) {
      const input = request instanceof Uint8Array ? decode(method.input, request) : decodeAll(method.input, request);
      const answer = handler(input, context);
      if (!serverStreaming) yield encode(await answer);
      else for await (const message of answer as AsyncIterable<unknown>) yield encode(message);
    },
  };
}

/** Binds a raw handler. */
export function bindRaw(service: string, method: string, handler: RawHandler): BoundMethod {
  return {
    clientStreaming: false,
    serverStreaming: false,
    async *run(request, context) {
      yield await handler(service, method, request as Uint8Array, context);
    },
  };
}

async function* decodeAll(schema: DescMessage, messages: AsyncIterable<Uint8Array>): AsyncGenerator<unknown> {
  for await (const message of messages) yield decode(schema, message);
}

function decode(schema: DescMessage, bytes: Uint8Array): unknown {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TtrpcError(Status.unknown, `ttrpc err: ${reason}`, { cause });
  }
}
