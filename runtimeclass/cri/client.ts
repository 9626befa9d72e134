import {
  create,
  type DescMethodUnary,
  type DescService,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { ImageService, RuntimeService } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';

/** The unary methods of a service as functions that return promises. */
export type UnaryClient<S extends DescService> = {
  [P in keyof S['method']]: S['method'][P] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : never;
};

export interface CallOptions {
  /** Milliseconds after which the call fails with DEADLINE_EXCEEDED; without, it may take for ever. */
  readonly timeoutMs?: number;
}

/** The CRI of one containerd: what kubelet calls, and `sealpod run`, `logs` and `exec`. */
export interface CriClient {
  readonly runtime: UnaryClient<typeof RuntimeService>;
  readonly images: UnaryClient<typeof ImageService>;
  close(): void;
}

function unaryClient<S extends DescService>(client: Client, service: S): UnaryClient<S> {
  const definition = toGrpcServiceDefinition(service);
  const methods: Record<string, unknown> = {};
  for (const method of service.methods) {
    const shape = definition[method.localName];
    if (shape === undefined) continue;
    methods[method.localName] = (request: MessageInitShape<typeof method.input>, options: CallOptions = {}) =>
      new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          shape.path,
          shape.requestSerialize,
          shape.responseDeserialize,
          create(method.input, request),
          options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs },
          (error: ServiceError | null, response: unknown) => (error === null ? resolve(response) : reject(error)),
        );
      });
  }
  return methods as UnaryClient<S>;
}

/**
 * A client of the CRI on a unix socket. Nothing is dialled before the first call. Its methods throw grpc-js's
 * `ServiceError`, whose `details` are the words of the runtime.
 */
export function connectCri(socketPath: string): CriClient {
  const client = new Client(`unix://${socketPath}`, credentials.createInsecure(), {
    // grpc-js would send the path of the socket, which Go's server refuses.
    'grpc.default_authority': 'localhost',
    'grpc.max_receive_message_length': 16 * 1024 * 1024,
  });
  return {
    runtime: unaryClient(client, RuntimeService),
    images: unaryClient(client, ImageService),
    close: () => client.close(),
  };
}
